"""The asset checks: how a summary is judged, what runs are compared, and that all are told before a run fails."""

from __future__ import annotations

import random
from dataclasses import replace

import dagster as dg
import pytest

from batch_pipeline.orchestration import checks
from batch_pipeline.orchestration.code_location import JobOrigin
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.earlier import Earlier
from batch_pipeline.orchestration.failures import run_error
from batch_pipeline.orchestration.launching import launch
from batch_pipeline.orchestration.names import INFERENCE_RESULTS, OUTPUT_MANIFEST
from batch_pipeline.review.conformity import Conformity
from batch_pipeline.review.distribution import distribution
from batch_pipeline.review.report import EmptyResults, Review
from batch_pipeline.summary import Summary
from batch_pipeline_tests.orchestration.test_declared import definitions
from batch_pipeline_tests.places import CONFIG, FLOWER

KEYS = {name: dg.AssetKey(name) for name in (INFERENCE_RESULTS, OUTPUT_MANIFEST)}
SUMMARY = Summary(
    state="finished",
    message="",
    inputs=2,
    succeeded=2,
    failed=0,
    rows=10,
    failed_rows=0,
    size=100,
    nodes=1,
    seconds=1.0,
    result_manifests=("s3://bucket/out/infer-result-0.manifest",),
    error_manifests=(),
    review=Review(answers=200, distribution=distribution([{"label": "rose"}] * 200)),
)


def judged(place, summary=SUMMARY, earlier=(), **parameters):
    results = list(checks.results(place.parameters(**parameters), summary, earlier, KEYS))
    assert [result.check_name for result in results] == list(checks.CHECKS)
    return {result.check_name: result for result in results}


def reviewed(**changes):
    return replace(SUMMARY, review=replace(SUMMARY.review, **changes))


def of_run(instance, run_id):
    records = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [record.dagster_event.asset_check_evaluation_data for record in records]
    return {check.check_name: check for check in found}


def flowers(place, name, first, seed=0):
    """200 rows of flowers, whose first measure is about `first`."""
    pick = random.Random(seed)
    rows = [f"{first + pick.random():.2f},{2 + pick.random():.2f},{first - 3:.2f},{first / 4:.2f}" for _ in range(200)]
    place.put(name, "\n".join(rows) + "\n")


def test_a_first_run_passes_them_all(place):
    results = judged(place)
    assert all(result.passed for result in results.values())
    assert "no earlier run" in results[checks.STABLE].description
    assert "says nothing" in results[checks.SCHEMA].description


def test_inputs_that_are_not_accounted_for_block(place):
    result = judged(place, replace(SUMMARY, succeeded=1))["every_input_accounted_for"]
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.ERROR)
    blocking = {spec.name for spec in checks.check_specs(Declaration()) if spec.blocking}
    assert blocking == {"every_input_accounted_for"}


@pytest.mark.parametrize(("threshold", "passed"), [(0.0, False), (0.19, False), (0.2, True)])
def test_a_larger_share_of_failures_is_an_error(place, threshold, passed):
    summary = replace(SUMMARY, failed_rows=2)
    result = judged(place, summary, error_threshold=threshold)[checks.THRESHOLD]
    assert (result.passed, result.severity) == (passed, dg.AssetCheckSeverity.ERROR)
    assert result.metadata["failed_share"].value == 0.2


def test_answers_that_are_not_as_the_schema_says_are_a_warning(place):
    first = ({"line": 3, "place": 120, "path": "$.label", "message": "3 is not of type 'string'"},)
    result = judged(place, reviewed(conformity=Conformity(50, 1, first)))[checks.SCHEMA]
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.metadata["mismatches"].value == 1
    assert result.metadata["first_mismatches"].records[0].data["path"] == "$.label"
    assert judged(place, reviewed(conformity=Conformity(50, 0, ())))[checks.SCHEMA].passed


def test_answers_of_another_distribution_are_a_warning_with_the_index_of_each_value(place):
    before = distribution([{"label": label, "same": 1.0} for label in ["rose", "tulip"] * 100])
    now = distribution([{"label": "rose", "same": 1.0}] * 200)
    result = judged(place, reviewed(distribution=now), [Earlier("monday", before)])[checks.STABLE]
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    rows = [record.data for record in result.metadata["psi"].records]
    assert [(row["value"], row["verdict"], row["against"]) for row in rows] == [
        ("label", "changed", "monday"),
        ("same", "stable", "monday"),
    ]
    assert result.metadata["largest_psi"].value > 0.25
    assert judged(place, reviewed(distribution=now), [Earlier("monday", now)])[checks.STABLE].passed


def test_values_that_only_one_of_two_runs_has_are_a_warning(place):
    result = judged(place, earlier=[Earlier("monday", distribution([{"score": 1.0}] * 50))])[checks.STABLE]
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    rows = [record.data for record in result.metadata["psi"].records]
    assert [(row["value"], row["verdict"]) for row in rows] == [("score", "gone"), ("label", "new")]
    assert (result.metadata["gone"].value, result.metadata["new"].value) == (1, 1)
    assert "1 gone, 1 new; the first: score is gone" in result.description


@pytest.mark.parametrize("response", [None, Conformity(0, 0, ())])
def test_answers_that_are_no_json_at_all_are_a_warning(place, response):
    summary = reviewed(answers=0, not_json=7, conformity=response, distribution={})
    result = judged(place, summary)[checks.SCHEMA]
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "7 of 7 lines in the sample are no JSON" in result.description
    nothing = judged(place, reviewed(answers=0, conformity=Conformity(0, 0, ())))[checks.SCHEMA]
    assert "nothing to check: the sample has no answer" in nothing.description


def test_empty_results_are_a_warning_that_names_lines(place):
    result = judged(place, reviewed(empty=EmptyResults(2, (4, 7))))[checks.NOT_EMPTY]
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "4, 7" in result.description


def test_a_service_that_finished_before_there_were_reviews(place):
    results = judged(place, replace(SUMMARY, review=None))
    assert all(result.passed for result in results.values())
    assert "not checked" in results[checks.SCHEMA].description


def test_all_are_told_before_a_run_above_its_threshold_fails(instance, place):
    place.put("notes.txt", "no csv")
    launched = launch(place.parameters(), wait=True, instance=instance)
    found = of_run(instance, launched.run_id)
    assert launched.state == "failed"
    assert set(found) == set(checks.CHECKS)
    assert {name for name, check in found.items() if not check.passed} == {checks.THRESHOLD}
    assert "notes.txt" in found[checks.THRESHOLD].description


def test_they_are_shown_on_the_results(instance, place):
    launched = launch(place.parameters(), wait=True, instance=instance)
    shown = {name: check.asset_key.to_user_string() for name, check in of_run(instance, launched.run_id).items()}
    assert shown.pop("every_input_accounted_for") == "output_manifest"
    assert set(shown.values()) == {"inference_results"}


def test_a_service_is_compared_with_its_own_run_before_also_where_that_was_overwritten(instance, place):
    flowers(place, "a.csv", 5.0)
    changes = {"if_changed": "overwrite"}
    first = of_run(instance, launch(place.parameters(**changes), wait=True, instance=instance).run_id)
    assert "nothing to compare with" in first[checks.STABLE].description
    again = of_run(instance, launch(place.parameters(**changes), wait=True, instance=instance).run_id)
    assert (again[checks.STABLE].passed, again[checks.STABLE].metadata["largest_psi"].value) == (True, 0.0)
    flowers(place, "a.csv", 7.0)
    other = launch(
        place.parameters(name="other", output_path=f"file://{place.root}/other/"), wait=True, instance=instance
    )
    assert "nothing to compare with" in of_run(instance, other.run_id)[checks.STABLE].description
    moved = launch(place.parameters(**changes), wait=True, instance=instance)
    assert moved.state == "finished"
    result = of_run(instance, moved.run_id)[checks.STABLE]
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.metadata["largest_psi"].value > 0.25


def test_a_partition_of_a_declared_service_is_compared_with_the_others(instance, place):
    template = {
        "model": "iris",
        "input_path": f"file://{place.root}/in/",
        "output_path": f"file://{place.root}/out/{{name}}/",
    }
    job = definitions(Declaration("reviews", template)).resolve_job_def("deploy_reviews")
    found = []
    for name, first in (("monday", 5.0), ("tuesday", 7.0)):
        flowers(place, "a.csv", first)
        instance.add_dynamic_partitions("reviews", [name])
        result = job.execute_in_process(instance=instance, partition_key=name)
        found.append(of_run(instance, result.run_id)[checks.STABLE])
    assert [check.passed for check in found] == [True, False]
    assert {record.data["against"].split(",")[0] for record in found[1].metadata["psi"].records} == {"monday"}


def test_the_answers_of_a_real_model_are_held_against_its_schema(instance, place):
    small = {"type": "array", "items": {"type": "number", "maximum": 0.5}}
    response = {"type": "object", "properties": {"label": {"type": "string"}, "probabilities": small}}
    api = {"url": "/", "request": {"Content-type": "application/json", "data": FLOWER}, "response": {"data": response}}
    place.push("iris:2.0.0", {**CONFIG, "apis": [api]})
    launched = launch(place.parameters(model="iris:2.0.0"), wait=True, instance=instance)
    assert launched.state == "finished"
    result = of_run(instance, launched.run_id)[checks.SCHEMA]
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "maximum" in result.metadata["first_mismatches"].records[0].data["message"]


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_last_step_alone_tells_them_again(instance, place, nodes):
    launched = launch(place.parameters(node_count=nodes), wait=True, instance=instance)
    options = dg.ReexecutionOptions(parent_run_id=launched.run_id, step_selection=["batch_service.write_manifests"])
    tags = {"dagster/partition": "flowers"}
    with dg.execute_job(JobOrigin.own().job, instance=instance, tags=tags, reexecution_options=options) as result:
        assert result.success
        found = of_run(instance, result.run_id)
    assert set(found) == set(checks.CHECKS)
    assert found[checks.STABLE].metadata["largest_psi"].value == 0


def test_inputs_that_are_lost_are_told_before_the_run_fails(instance, place):
    """A result that somebody takes away while the service works; the last step proves it from storage."""
    launched = launch(place.parameters(), wait=True, instance=instance)
    (place.output / "infer-result/b.csv_result.txt").unlink()
    (place.output / "infer-result-0.manifest").unlink()
    options = dg.ReexecutionOptions(parent_run_id=launched.run_id, step_selection=["batch_service.write_manifests"])
    tags = {"dagster/partition": "flowers"}
    with dg.execute_job(JobOrigin.own().job, instance=instance, tags=tags, reexecution_options=options) as result:
        assert not result.success
        (found,) = of_run(instance, result.run_id).values()
        error = run_error(instance, result.run_id)
    assert (found.check_name, found.passed, found.blocking) == ("every_input_accounted_for", False, True)
    assert (found.metadata["inputs"].value, found.metadata["missing"].value) == (2, 1)
    (first,) = found.metadata["first_missing"].records
    assert first.data == {"line": 2, "source": f"file://{place.root}/in/b.csv"}
    assert (error.code, error.message) == ("AccountingFailed", found.description)
