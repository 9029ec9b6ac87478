"""The models of the registry in the catalog: what a version's partition says, and what the sensor asks for."""

from __future__ import annotations

import os
import shutil
import socket

import dagster as dg
import pytest

from batch_pipeline.errors import ModelRefused
from batch_pipeline.node_specs import load_node_specs
from batch_pipeline.orchestration import model_assets
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.factory import declare
from batch_pipeline.orchestration.graph import MODEL
from batch_pipeline.orchestration.model_assets import model_registry_definitions
from batch_pipeline.orchestration.requests import TickFailed
from batch_pipeline.orchestration.resources import resources_of
from batch_pipeline.storage.timeouts import Timeouts
from batch_pipeline_tests.places import CONFIG


@pytest.fixture
def definitions(place):
    return dg.Definitions.merge(
        model_registry_definitions(os.environ), dg.Definitions(resources=dict(resources_of(None)))
    )


@pytest.fixture
def job(definitions):
    return definitions.resolve_job_def("validate_models")


@pytest.fixture
def tick(definitions, instance):
    """One tick of the sensor, its partitions made and its runs executed unless told otherwise."""
    sensor = definitions.resolve_sensor_def("model_versions")
    cursors = [None]

    def evaluate(*, runs=True):
        context = dg.SensorEvaluationContext(
            instance_ref=instance.get_ref(),
            last_tick_completion_time=None,
            last_run_key=None,
            cursor=cursors[-1],
            repository_name=None,
            definitions=definitions,
            resources=dict(resources_of(None)),
        )
        with context:
            data = sensor.evaluate_tick(context)
        cursors.append(data.cursor)
        for request in data.dynamic_partitions_requests or ():
            if isinstance(request, dg.AddDynamicPartitionsRequest):
                instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
            else:
                for key in request.partition_keys:
                    instance.delete_dynamic_partition(request.partitions_def_name, key)
        for request in data.run_requests if runs else ():
            look(definitions, instance, request.partition_key)
        return {request.partition_key: request.run_key for request in data.run_requests}

    return evaluate


def look(definitions, instance, ref):
    job = definitions.resolve_job_def("validate_models")
    return job.execute_in_process(instance=instance, partition_key=ref)


def partitions(instance):
    return set(instance.get_dynamic_partitions("model_version"))


def test_a_version_says_what_it_is(definitions, instance, place):
    metrics = {"f1": 0.91, "accuracy": "0.95", "recall": None}
    place.push("iris:2.0.0", {**CONFIG, "metrics": metrics})
    instance.add_dynamic_partitions("model_version", ["iris:2.0.0"])
    result = look(definitions, instance, "iris:2.0.0")
    (made,) = result.asset_materializations_for_node("batch_pipeline__model")
    found = {name: value.value for name, value in made.metadata.items()}
    assert (made.partition, found["status"], found["algorithm"]) == ("iris:2.0.0", "normal", "logistic_regression")
    assert (found["metrics/f1"], found["metrics/accuracy"]) == (0.91, 0.95)
    assert "metrics/recall" not in found
    assert len(found["model_sha256"]) == len(found["model_digest"]) == 64
    assert found["dagster/size_bytes"] == sum(
        path.stat().st_size for path in (place.root / "models/iris/2.0.0").iterdir()
    )
    assert found["dagster/uri"] == f"file://{place.root}/models/iris/2.0.0/"
    assert found["apis"][0]["request"]["properties"]["input_4"] == {"type": "number"}
    assert [record.data["shape"] for record in found["onnx_inputs"].records] == ["N, 4"]
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("valid", True)


def test_a_version_that_is_not_normal_fails_its_check_with_every_reason_and_not_its_run(definitions, instance, place):
    place.push("iris:2.0.0", {**CONFIG, "model_type": "Image", "model_algorithm": "1st"})
    instance.add_dynamic_partitions("model_version", ["iris:2.0.0"])
    result = look(definitions, instance, "iris:2.0.0")
    (check,) = result.get_asset_check_evaluations()
    assert result.success
    assert (check.passed, check.severity, check.blocking) == (False, dg.AssetCheckSeverity.ERROR, False)
    assert "model_type" in check.description
    assert "model_algorithm" in check.description


def test_a_version_that_is_gone_is_an_error_of_its_run(definitions, instance, place):
    instance.add_dynamic_partitions("model_version", ["iris:9.0.0"])
    job = definitions.resolve_job_def("validate_models")
    result = job.execute_in_process(instance=instance, partition_key="iris:9.0.0", raise_on_error=False)
    failure = result.get_step_failure_events()[0].step_failure_data.user_failure_data
    assert not result.success
    assert "iris has no version 9.0.0" in failure.description


def test_a_new_version_is_looked_at_once(tick, instance, place):
    assert list(tick()) == ["iris:1.0.0"]
    assert tick() == {}
    place.push("iris:1.1.0")
    assert list(tick()) == ["iris:1.1.0"]
    assert partitions(instance) == {"iris:1.0.0", "iris:1.1.0"}


def test_a_tick_that_is_repeated_asks_for_the_same_run(tick):
    """As after a kill between the tick and the run: Dagster makes one run of a run key."""
    first = tick(runs=False)
    assert tick(runs=False) == first


def test_a_changed_package_is_looked_at_again_and_also_where_it_is_changed_back(tick, place):
    file = place.root / "models/iris/1.0.0/config.json"
    before = file.read_text()
    keys = [tick()]
    for text in (before + " ", before, before + " "):
        file.write_text(text)
        keys.append(tick())
    assert [list(key) for key in keys] == [["iris:1.0.0"]] * 4
    assert len({key["iris:1.0.0"] for key in keys}) == 4


def test_versions_take_turns_where_there_are_many(tick, place, monkeypatch):
    """A run that fails asks for its version in each tick, and must not keep the others waiting."""
    monkeypatch.setattr(model_assets, "MOST", 2)
    for version in ("1.1.0", "1.2.0"):
        place.push(f"iris:{version}")
    assert [list(tick(runs=False)) for _ in range(3)] == [
        ["iris:1.0.0", "iris:1.1.0"],
        ["iris:1.2.0", "iris:1.0.0"],
        ["iris:1.1.0", "iris:1.2.0"],
    ]


def test_a_deleted_version_is_taken_away(tick, instance, place):
    place.push("roses:1.0.0")
    tick()
    shutil.rmtree(place.root / "models/roses")
    assert tick() == {}
    assert partitions(instance) == {"iris:1.0.0"}


def test_a_registry_that_cannot_be_read_is_the_ticks_error_and_nothing_is_lost(tick, instance, place, monkeypatch):
    tick()
    with monkeypatch.context() as patch:
        patch.setenv("BATCH_PIPELINE_MODELS", "s3://no-such-bucket/models/")
        patch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        with pytest.raises(TickFailed, match="no-such-bucket"):
            tick()
    assert partitions(instance) == {"iris:1.0.0"}
    assert tick() == {}


def test_a_store_that_hangs_is_the_ticks_error_before_dagster_gives_the_tick_up(tick, monkeypatch):
    monkeypatch.setattr("batch_pipeline.storage.timeouts.IN_TICKS", Timeouts(read_seconds=0.2, attempts=2))
    monkeypatch.setenv("BATCH_PIPELINE_MODELS", "s3://flowers/models/")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for name, value in (("ENDPOINT_URL_S3", endpoint), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
            monkeypatch.setenv(f"AWS_{name}", value)
        with pytest.raises(TickFailed, match=rf"flowers.*can't be reached.*{endpoint}"):
            tick()


def test_a_folder_that_no_service_can_refer_to_is_left_out(tick, instance, place):
    for name in ("iris/1.0.0/extra", "odd name/1.0.0", "iris/...", "readme.md"):
        path = place.root / "models" / name
        path.mkdir(parents=True)
        (path / "note").write_text("x")
    tick()
    assert partitions(instance) == {"iris:1.0.0"}
    with pytest.raises(ModelRefused):
        place.deployment.registry.show("iris:...")


def test_services_run_whether_or_not_a_version_was_looked_at(definitions, instance, place):
    template = {
        "model": "iris",
        "input_path": f"file://{place.root}/in/",
        "output_path": f"file://{place.root}/out/{{name}}/",
    }
    ours = Declaration("reviews", template)
    merged = dg.Definitions.merge(definitions, declare(ours, load_node_specs(None), os.environ))
    graph = merged.resolve_asset_graph()
    assert graph.get(ours.key("inference_results")).partition_mappings[MODEL] == dg.AllPartitionMapping()
    instance.add_dynamic_partitions("reviews", ["monday", "tuesday"])
    service = merged.resolve_job_def("deploy_reviews")
    assert service.execute_in_process(instance=instance, partition_key="monday").success
    instance.add_dynamic_partitions("model_version", ["iris:1.0.0", "iris:2.0.0"])
    look(merged, instance, "iris:1.0.0")
    assert service.execute_in_process(instance=instance, partition_key="tuesday").success


def test_a_model_is_a_stub_where_no_registry_is_declared(instance, place):
    alone = declare(Declaration("reviews", {"model": "iris"}), load_node_specs(None), os.environ)
    alone = dg.Definitions.merge(alone, dg.Definitions(resources=dict(resources_of(None))))
    assert not alone.resolve_asset_graph().get(MODEL).is_executable


def test_automation_neither_waits_for_nor_follows_the_models(place, instance, definitions):
    ours = Declaration(
        "reviews",
        {"model": "iris", "input_path": f"file://{place.root}/in/", "output_path": f"file://{place.root}/out/"},
        deps=(dg.AssetKey("clicks"),),
        automation_condition=dg.AutomationCondition.eager(),
    )

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["reviews"]))
    def clicks() -> None: ...

    merged = dg.Definitions.merge(
        definitions, declare(ours, load_node_specs(None), os.environ), dg.Definitions(assets=[clicks])
    )
    instance.add_dynamic_partitions("model_version", ["iris:1.0.0"])
    first = dg.evaluate_automation_conditions(merged, instance)
    assert first.total_requested == 0
    dg.materialize([clicks], instance=instance, partition_key="reviews")
    second = dg.evaluate_automation_conditions(merged, instance, cursor=first.cursor)
    assert second.get_requested_partitions(ours.key("output_manifest")) == {"reviews"}
    look(merged, instance, "iris:1.0.0")
    third = dg.evaluate_automation_conditions(merged, instance, cursor=second.cursor)
    assert third.total_requested == 0
