"""What a materialization shows: numbers for charts, tables and a plot for people, and nothing secret."""

from __future__ import annotations

import base64
import shutil

import dagster as dg
import pytest

from batch_pipeline.orchestration.code_location import JobOrigin
from batch_pipeline.orchestration.instance import open_instance
from batch_pipeline.orchestration.launching import launch
from batch_pipeline.orchestration.review_metadata import LARGEST_PLOT, MOST_NODES, of_review
from batch_pipeline.orchestration.tables import CELL, table
from batch_pipeline.review.distribution import distribution
from batch_pipeline.review.report import Review
from batch_pipeline.review.work import NodeWork, SpecCost
from batch_pipeline_tests.places import Place

SVG = b"<svg "
ASSETS = ("input_manifest", "inference_results", "output_manifest")
SAME = ("inputs", "succeeded", "failed", "rows", "failed_rows", "seconds", "nodes")
"""The numbers that more than one asset has."""


def shown(instance, run_id):
    """The metadata of each asset that the run made."""
    records = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    events = [record.dagster_event.materialization for record in records]
    return {event.asset_key.to_user_string(): event.metadata for event in events}


def put_mixed(place):
    """Beside the two good inputs, one with a bad row, and one that is no CSV."""
    place.put("c.csv", "5.1,3.5,1.4,0.2\n6.7,3.0,5.2,2.3\nx,1,2,3\n")
    place.put("notes.txt", "no csv")


@pytest.fixture
def mixed(place):
    put_mixed(place)
    return place


@pytest.fixture(scope="module", params=[1, 2], ids=["stand_alone", "two_nodes"])
def made(request, tmp_path_factory, fresh_home):
    """One run that many tests look at: where it worked, and what it showed."""
    root = tmp_path_factory.mktemp("made")
    place = Place.at(root)
    for name in ("a.csv", "b.csv"):
        place.put(name)
    put_mixed(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(shutil.copytree(fresh_home, root / "home")))
        patch.setenv("BATCH_PIPELINE_ALLOW_LOCAL_FILES", "true")
        patch.setenv("BATCH_PIPELINE_MODELS", f"file://{root}/models/")
        patch.setenv("BATCH_PIPELINE_CACHE", str(root / "cache"))
        with open_instance(quiet=True) as instance:
            parameters = place.parameters(error_threshold=0.5, node_count=request.param)
            launched = launch(parameters, wait=True, instance=instance)
            assert launched.state == "finished"
            return place, shown(instance, launched.run_id)


@pytest.fixture
def metadata(made):
    return made[1]


def test_numbers_that_make_sense_over_time_are_numbers_under_one_name(metadata):
    results = metadata["inference_results"]
    counts = {name: results[name].value for name in SAME[:5]}
    assert counts == {"inputs": 4, "succeeded": 3, "failed": 1, "rows": 5, "failed_rows": 1}
    numeric = (dg.IntMetadataValue, dg.FloatMetadataValue)
    for name in SAME:
        assert isinstance(results[name], numeric)
        assert results[name] == metadata["output_manifest"][name]
    assert metadata["input_manifest"]["inputs"] == results["inputs"]
    floats = ("rows_per_second", "inputs_per_second", "node_balance", "node_seconds", "seconds")
    assert all(isinstance(results[name], dg.FloatMetadataValue) for name in floats)
    integers = ("bytes_read", "answers_reviewed", "empty_results", "dagster/row_count", "dagster/size_bytes")
    assert all(isinstance(results[name], dg.IntMetadataValue) for name in integers)
    assert results["node_balance"].value >= 1
    assert results["dagster/row_count"].value == 5


def test_the_size_is_that_of_the_results(made):
    place, metadata = made
    stored = sum(path.stat().st_size for path in (place.output / "infer-result").iterdir())
    assert metadata["inference_results"]["dagster/size_bytes"].value == stored


def test_places_are_named(made):
    place, metadata = made
    out = f"file://{place.root}/out/"
    assert metadata["inference_results"]["dagster/uri"].value == f"{out}infer-result/"
    assert metadata["output_manifest"]["dagster/uri"].value == out
    assert metadata["input_manifest"]["dagster/uri"].value == f"file://{place.root}/in/"
    manifests = metadata["output_manifest"]["result_manifests"].value
    assert manifests[0] == f"{out}infer-result-0.manifest"


def test_the_model_and_the_mapping_are_named(metadata):
    results = metadata["inference_results"]
    assert results["model"].value == "iris:1.0.0"
    assert len(results["model_sha256"].value) == len(results["model_digest"].value) == 64
    assert results["mapping"].value["properties"]["input_2"]["index"] == 1


def test_tables_show_answers_with_their_inputs_and_the_first_errors(metadata):
    results = metadata["inference_results"]
    sample = results["sample"].records[0].data
    assert "input_1" in sample["request"]
    assert "label" in sample["answer"]
    errors = {
        record.data["source"].rpartition("/")[2]: record.data["code"] for record in results["first_errors"].records
    }
    assert errors["c.csv"] == "failed_rows"
    assert set(errors) == {"c.csv", "notes.txt"}
    assert results["first_errors"] == metadata["output_manifest"]["first_errors"]
    spent = results["node_seconds_by_spec"].records[0].data
    assert (spent["spec"], "cost" in spent) == ("cpu-2u8g", False)


def test_the_plot_is_an_image_and_the_numbers_are_there_too(metadata):
    results = metadata["inference_results"]
    text = results["predictions"].value
    assert len(text) < LARGEST_PLOT + 100
    image = text.removeprefix("![Distribution of the answers](data:image/svg+xml;base64,").removesuffix(")")
    assert base64.b64decode(image, validate=True).startswith(SVG)
    assert results["distribution"].value["answers"] == 4


def test_no_secret_is_shown(mixed, instance):
    parameters = mixed.parameters(error_threshold=0.5, environment={"TOKEN": "hunter2", "OTHER": {"env": "HOME"}})
    metadata = shown(instance, launch(parameters, wait=True, instance=instance).run_id)
    assert "hunter2" not in str(metadata)
    assert metadata["input_manifest"]["parameters"].value["environment"]["OTHER"] == {"env": "HOME"}


def test_a_service_that_was_finished_shows_what_it_was(mixed, instance):
    parameters = mixed.parameters(error_threshold=0.5)
    first = shown(instance, launch(parameters, wait=True, instance=instance).run_id)
    again = shown(instance, launch(parameters, wait=True, instance=instance).run_id)
    for name in (*SAME, "distribution", "predictions", "node_seconds", "dagster/row_count", "dagster/size_bytes"):
        assert again["inference_results"][name] == first["inference_results"][name]
    assert again["output_manifest"]["finished_before"].value
    assert not first["output_manifest"]["finished_before"].value


def test_the_run_is_tagged_with_service_model_and_nodes(mixed, instance):
    launched = launch(mixed.parameters(error_threshold=0.5), wait=True, instance=instance)
    tags = instance.get_run_by_id(launched.run_id).tags
    assert tags["batch_pipeline/service"] == "flowers"
    assert (tags["batch_pipeline/model"], tags["batch_pipeline/model_version"]) == ("iris", "iris:1.0.0")
    assert tags["batch_pipeline/nodes"] == "1 × cpu-2u8g"


def test_the_last_step_alone_shows_it_again_and_the_version_that_was_used(mixed, instance):
    launched = launch(mixed.parameters(error_threshold=0.5), wait=True, instance=instance)
    mixed.push("iris:2.0.0")
    options = dg.ReexecutionOptions(parent_run_id=launched.run_id, step_selection=["batch_service.write_manifests"])
    tags = {"dagster/partition": "flowers"}
    with dg.execute_job(JobOrigin.own().job, instance=instance, tags=tags, reexecution_options=options) as result:
        assert result.success
        again = shown(instance, result.run_id)
    assert set(again) == {"inference_results", "output_manifest"}
    assert again["inference_results"]["model"].value == "iris:1.0.0"
    first = shown(instance, launched.run_id)
    assert again["inference_results"]["distribution"] == first["inference_results"]["distribution"]


def test_money_is_shown_where_every_spec_has_a_price():
    priced = SpecCost("cpu", 7200.0, 0.5, 1.0)
    shown = of_review(Review(costs=(priced, SpecCost("gpu", 3600.0, 2.0, 2.0))))
    assert (shown["cost"], shown["node_seconds"]) == (3.0, 10800.0)
    assert "cost" not in of_review(Review(costs=(priced, SpecCost("gpu", 3600.0, None, None))))


def test_many_nodes_make_a_short_table_the_slowest_first():
    nodes = tuple(NodeWork(node, float(node), 1, 0, 1, 0, 10) for node in range(256))
    shown = of_review(Review(nodes=nodes, balance=2.0))
    rows = [record.data["node"] for record in shown["slowest_nodes"].records]
    assert rows == list(range(255, 255 - MOST_NODES, -1))
    assert shown["bytes_read"] == 2560


def test_a_review_without_answers_has_no_plot():
    assert "predictions" not in of_review(Review())


def test_the_largest_distribution_fits_an_event():
    answers = [{f"value_{leaf}": (row * leaf) % 97 / 7 for leaf in range(60)} for row in range(500)]
    shown = of_review(Review(answers=500, distribution=distribution(answers)))
    assert len(str(shown["distribution"].value)) < 60_000
    assert len(shown["predictions"].value) < LARGEST_PLOT + 100


def test_a_table_keeps_numbers_cuts_texts_and_leaves_empty_columns_out():
    made = table([{"n": 1, "text": "x" * 600, "none": None, "mixed": 1}, {"n": 2.5, "text": {"a": "中"}, "mixed": "y"}])
    assert [(column.name, column.type) for column in made.schema.columns] == [
        ("n", "number"),
        ("text", "string"),
        ("mixed", "string"),
    ]
    first, second = (record.data for record in made.records)
    assert (first["n"], len(first["text"]), first["mixed"]) == (1, CELL, "1")
    assert second["text"] == '{"a": "中"}'
