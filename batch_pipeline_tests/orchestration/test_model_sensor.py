"""The sensor on a declaration's model: what a new version runs again, how often, and what it says."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.execution.backfill import BulkActionStatus

from batch_pipeline.orchestration import services
from batch_pipeline.orchestration.config import to_run_config
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.failures import run_error
from batch_pipeline.orchestration.names import TAG_MODEL
from batch_pipeline.orchestration.requests import TickFailed
from batch_pipeline.triggers.settings import ModelTrigger
from batch_pipeline_tests.orchestration.ticks import Sensor
from batch_pipeline_tests.places import CONFIG


@pytest.fixture
def declaration(place):
    template = {
        "model": "iris",
        "input_path": f"file://{place.root}/in/",
        "output_path": f"file://{place.root}/out/{{name}}/",
        "if_changed": "overwrite",
    }
    return Declaration("reviews", template, triggers=(ModelTrigger(),))


@pytest.fixture
def sensor(instance, declaration):
    return Sensor(instance, declaration, "model")


def deploy(sensor, name, status=dg.DagsterRunStatus.SUCCESS, **changes):
    """A run of the service, without its results."""
    sensor.instance.add_dynamic_partitions("reviews", [name])
    tags = {"dagster/partition": name, "batch_pipeline/declaration": "reviews", TAG_MODEL: changes.get("model", "iris")}
    config = to_run_config(changes, "reviews")
    return sensor.instance.create_run_for_job(sensor.job, run_config=config, tags=tags, status=status)


def execute(sensor, name, run_config=None):
    return sensor.job.execute_in_process(instance=sensor.instance, partition_key=name, run_config=run_config or {})


def push(place, ref):
    """Another package: the same under another version is no new model."""
    place.push(ref, {**CONFIG, "metrics": {"of": ref}})


def backfills(sensor):
    return sensor.instance.get_backfills()


def test_the_first_look_only_remembers(sensor):
    deploy(sensor, "monday")
    tick = sensor.tick()
    assert "iris:1.0.0 is the newest normal version; services run again when there is a newer one" in tick.message
    assert "iris:1.0.0 is still the newest normal version" in sensor.tick().message
    assert backfills(sensor) == []


def test_a_new_version_runs_all_services_again_in_one_backfill(sensor, place):
    deploy(sensor, "monday")
    deploy(sensor, "tuesday", dg.DagsterRunStatus.FAILURE)
    sensor.tick()
    push(place, "iris:1.1.0")
    tick = sensor.tick()
    (backfill,) = backfills(sensor)
    assert backfill.partition_names == ["monday", "tuesday"]
    assert backfill.title == "iris:1.1.0"
    assert backfill.partition_set_origin.partition_set_name == "deploy_reviews_partition_set"
    assert f"backfill {backfill.backfill_id} runs 2 services again" in tick.message
    assert "still the newest" in sensor.tick().message
    assert len(backfills(sensor)) == 1


def test_each_service_runs_with_its_own_recorded_parameters(sensor, place):
    sensor.instance.add_dynamic_partitions("reviews", ["one", "two"])
    assert execute(sensor, "one", to_run_config({"node_count": 2}, "reviews")).success
    assert execute(sensor, "two", to_run_config({"description": "second"}, "reviews")).success
    sensor.tick()
    push(place, "iris:1.1.0")
    sensor.tick()
    (backfill,) = backfills(sensor)
    for name in backfill.partition_names:
        # A backfill runs each partition with the config that its job has for it.
        config = sensor.job.get_run_config_for_partition_key(name)
        assert execute(sensor, name, config).success
    assert len(list((place.root / "out/one").glob("infer-result-*.manifest"))) == 2
    assert len(list((place.root / "out/two").glob("infer-result-*.manifest"))) == 1
    event = sensor.instance.get_latest_materialization_event(dg.AssetKey(["reviews", "inference_results"]))
    digest = place.deployment.registry.show("iris:1.1.0").digest
    assert event.asset_materialization.metadata["model_digest"].value == digest


def test_a_killed_tick_asks_for_the_same_backfill(sensor, place):
    deploy(sensor, "monday")
    sensor.tick()
    push(place, "iris:1.1.0")
    sensor.evaluate()
    (backfill,) = backfills(sensor)
    sensor.tick()
    assert [each.backfill_id for each in backfills(sensor)] == [backfill.backfill_id]


def test_a_service_at_work_runs_again_once_it_has_ended(sensor, place):
    run = deploy(sensor, "monday", dg.DagsterRunStatus.NOT_STARTED)
    deploy(sensor, "tuesday")
    sensor.tick()
    push(place, "iris:1.1.0")
    assert "at work, to run again afterwards: 1 service" in sensor.tick().message
    assert [each.partition_names for each in backfills(sensor)] == [["tuesday"]]
    sensor.tick()
    assert len(backfills(sensor)) == 1
    sensor.instance.report_run_canceled(run)
    sensor.tick()
    assert sorted(each.partition_names for each in backfills(sensor)) == [["monday"], ["tuesday"]]
    assert "still the newest" in sensor.tick().message


def test_what_was_given_a_version_or_has_results_of_the_new_one_is_left_alone(sensor, place):
    deploy(sensor, "pinned", model="iris:1.0.0")
    deploy(sensor, "other", model="tulips")
    sensor.tick()
    push(place, "iris:1.1.0")
    sensor.instance.add_dynamic_partitions("reviews", ["late", "never-ran"])
    assert execute(sensor, "late").success
    assert "no service is to run again" in sensor.tick().message
    assert backfills(sensor) == []


def test_content_that_comes_back_as_a_newer_version_runs_the_services_again(sensor, place):
    deploy(sensor, "monday")
    sensor.tick()
    for version, content in (("1.1.0", "new"), ("1.2.0", "newer"), ("1.3.0", "new")):
        place.push(f"iris:{version}", {**CONFIG, "metrics": {"of": content}})
        sensor.tick()
    assert [each.title for each in backfills(sensor)] == ["iris:1.3.0", "iris:1.2.0", "iris:1.1.0"]
    assert "still the newest" in sensor.tick().message
    assert len(backfills(sensor)) == 3


@pytest.mark.parametrize(
    ("status", "how"),
    [
        (BulkActionStatus.CANCELED, "was cancelled"),
        (BulkActionStatus.FAILED, "failed"),
        (BulkActionStatus.COMPLETED_FAILED, "has ended"),
    ],
)
def test_a_backfill_that_ended_early_is_told_and_not_made_up_for(sensor, place, status, how):
    deploy(sensor, "monday")
    deploy(sensor, "tuesday")
    run = deploy(sensor, "wednesday", dg.DagsterRunStatus.NOT_STARTED)
    sensor.tick()
    push(place, "iris:1.1.0")
    sensor.tick()
    (backfill,) = backfills(sensor)
    assert execute(sensor, "monday").success
    sensor.instance.update_backfill(backfill.with_status(status))
    said = (
        f"backfill {backfill.backfill_id} {how}, and 1 of its 2 services have no results of iris:1.1.0 "
        "(reviews/tuesday); run one again with: batch-pipeline services run NAME"
    )
    assert said in sensor.tick().message
    assert len(backfills(sensor)) == 1
    # A service that was at work then was not part of it.
    sensor.instance.report_run_canceled(run)
    assert said in sensor.tick().message
    assert [each.partition_names for each in backfills(sensor)] == [["wednesday"], ["monday", "tuesday"]]
    place.push("iris:1.2.0", {**CONFIG, "metrics": {"of": "iris:1.1.0"}})
    assert said in sensor.tick().message
    assert execute(sensor, "tuesday").success
    assert backfill.backfill_id not in sensor.tick().message


def test_an_abnormal_version_runs_nothing_and_is_told_where_there_is_no_other(sensor, place):
    deploy(sensor, "monday")
    sensor.tick()
    (place.root / "models/iris/2.0.0").mkdir()
    (place.root / "models/iris/2.0.0/config.json").write_text("{}")
    assert "iris:1.0.0 is still the newest normal version" in sensor.tick().message
    (place.root / "models/iris/1.0.0/model.onnx").write_bytes(b"nonsense")
    tick = sensor.tick()
    assert "no version of iris is normal" in tick.message
    assert "\n" not in tick.message
    assert backfills(sensor) == []
    push(place, "iris:3.0.0")
    sensor.tick()
    assert [each.title for each in backfills(sensor)] == ["iris:3.0.0"]


def test_a_version_taken_back_runs_nothing(sensor, place):
    deploy(sensor, "monday")
    push(place, "iris:1.1.0")
    sensor.tick()
    (place.root / "models/iris/1.1.0/model.onnx").write_bytes(b"nonsense")
    assert "iris:1.1.0 is not normal any more, or gone" in sensor.tick().message
    assert backfills(sensor) == []


def test_the_same_package_under_another_version_runs_nothing(sensor, place):
    deploy(sensor, "monday")
    sensor.tick()
    place.push("iris:1.1.0")
    assert "iris:1.1.0 is still the newest normal version" in sensor.tick().message
    assert backfills(sensor) == []


def test_a_registry_that_cannot_be_read_fails_the_tick_and_the_next_recovers(sensor, place, monkeypatch):
    deploy(sensor, "monday")
    sensor.tick()
    push(place, "iris:1.1.0")
    with monkeypatch.context() as patch:
        patch.setenv("BATCH_PIPELINE_MODELS", f"file://{place.root}/gone/")
        with pytest.raises(TickFailed, match="iris") as failed:
            sensor.tick()
        assert "\n" not in str(failed.value)
    sensor.tick()
    assert len(backfills(sensor)) == 1


@pytest.mark.parametrize("cursor", ["nonsense", "[]", "3", '{"version": "1.0.0"}'])
def test_a_cursor_of_something_else_is_as_the_first_look(sensor, cursor):
    sensor.cursor = cursor
    assert "services run again when there is a newer one" in sensor.tick().message


def test_a_fixed_service_runs_again(instance, declaration, place):
    template = {**declaration.template, "output_path": f"file://{place.root}/out/"}
    sensor = Sensor(instance, replace(declaration, template=template), "model")
    assert execute(sensor, "reviews").success
    sensor.tick()
    push(place, "iris:1.1.0")
    sensor.tick()
    assert [each.partition_names for each in backfills(sensor)] == [["reviews"]]


def run_of(sensor, backfill, name):
    """As the daemon makes it. Returns why it failed."""
    tags = {**backfill.tags, "dagster/partition": name}
    run = sensor.instance.create_run_for_job(sensor.job, tags=tags)
    execute_run(InMemoryJob(sensor.job), run, sensor.instance)
    return run_error(sensor.instance, run.run_id)


def test_a_service_that_was_deleted_while_its_backfill_waited_does_not_come_back(sensor, place):
    sensor.instance.add_dynamic_partitions("reviews", ["monday"])
    assert execute(sensor, "monday").success
    sensor.tick()
    push(place, "iris:1.1.0")
    sensor.tick()
    services.delete_service(sensor.instance, "reviews/monday")
    (backfill,) = backfills(sensor)
    assert "was deleted after the backfill" in run_of(sensor, backfill, "monday").message
    assert services.list_services(sensor.instance) == []


def test_a_fixed_service_that_was_deleted_while_its_backfill_waited_does_not_run(instance, declaration, place):
    template = {**declaration.template, "output_path": f"file://{place.root}/out/"}
    sensor = Sensor(instance, replace(declaration, template=template), "model")
    assert execute(sensor, "reviews").success
    sensor.tick()
    push(place, "iris:1.1.0")
    sensor.tick()
    (backfill,) = backfills(sensor)
    services.delete_service(instance, "reviews", results=True)
    for _ in ("at first", "tried again"):
        assert "was deleted after the backfill" in run_of(sensor, backfill, "reviews").message
    services.delete_service(instance, "reviews")
    assert execute(sensor, "reviews").success
    assert run_of(sensor, backfill, "reviews") is None
