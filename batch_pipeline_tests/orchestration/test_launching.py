"""Launch services on a real instance, with a real model: names, refusals, endings, the queue."""

from __future__ import annotations

import os

import dagster as dg
import pytest
from dagster._core.execution.api import execute_run

from batch_pipeline.errors import InvalidSettings, LimitReached, ModelRefused, ServiceBusy
from batch_pipeline.orchestration.code_location import JobOrigin, create_run
from batch_pipeline.orchestration.failures import run_error
from batch_pipeline.orchestration.instance import open_instance
from batch_pipeline.orchestration.launching import launch
from batch_pipeline.orchestration.names import SERVICE


def partitions(instance):
    return set(instance.get_dynamic_partitions(SERVICE))


def materialization(instance, asset):
    event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    return event.asset_materialization if event is not None else None


def test_a_stand_alone_service_finishes_here(instance, place):
    launched = launch(place.parameters(environment={"PLACE": "here"}), wait=True, instance=instance)
    assert (launched.service, launched.state, launched.error) == ("flowers", "finished", None)
    assert len(place.lines("infer-result-0.manifest")) == 2
    assert "PLACE" not in os.environ
    assert not (place.output / "_batch/lock.json").exists()
    run = instance.get_run_by_id(launched.run_id)
    assert run.tags["batch_pipeline/model"] == "iris"
    assert run.tags["batch_pipeline/inputs"] == run.tags["batch_pipeline/inputs_done"] == "2"


def test_the_metadata_says_what_came_of_it(instance, place):
    launch(place.parameters(), wait=True, instance=instance)
    listed, results, manifests = (
        materialization(instance, asset) for asset in ("input_manifest", "inference_results", "output_manifest")
    )
    assert listed.partition == results.partition == manifests.partition == "flowers"
    assert listed.metadata["inputs"].value == 2
    assert results.metadata["succeeded"].value == 2
    assert results.metadata["model"].value == "iris:1.0.0"
    assert len(results.metadata["model_sha256"].value) == 64
    assert results.metadata["results"].value == f"file://{place.root}/out/infer-result/"
    assert len(results.metadata["sample"].value.records) > 0
    assert manifests.metadata["result_manifests"].value == [f"file://{place.root}/out/infer-result-0.manifest"]


def test_a_service_above_its_threshold_has_failed_and_keeps_its_results(instance, place):
    place.put("notes.txt", "no csv")
    launched = launch(place.parameters(), wait=True, instance=instance)
    assert (launched.state, launched.error.code, launched.refused) == ("failed", "ThresholdExceeded", False)
    assert "\n" not in launched.message
    assert materialization(instance, "output_manifest").metadata["failed"].value == 1
    assert "no csv" not in launched.message


def test_a_refused_service_leaves_neither_partition_nor_run(instance, place):
    with pytest.raises(ModelRefused, match="iris"):
        launch(place.parameters(model="rose"), wait=True, instance=instance)
    assert not partitions(instance)
    assert not instance.get_runs()


def test_what_only_the_run_can_refuse_is_refused_too(instance, place):
    """As where the model goes between the launch and the start of the run."""
    run = create_run(instance, place.parameters())
    (place.root / "models/iris/1.0.0/model.onnx").unlink()
    execute_run(JobOrigin.own().job, run, instance)
    error = run_error(instance, run.run_id)
    assert (error.code, error.refused) == ("ModelRefused", True)
    assert "model.onnx" in error.message


def test_a_generated_name_is_new(instance, place):
    parameters = place.parameters().model_copy(update={"name": None})
    launched = launch(parameters, wait=False, instance=instance)
    assert launched.service.startswith("service-")
    assert partitions(instance) == {launched.service}


def test_a_queued_run_belongs_to_the_code_location_of_the_workspace(instance, place):
    launched = launch(place.parameters(name="服务-1"), wait=False, instance=instance)
    assert launched.state == "deploying"
    run = instance.get_run_by_id(launched.run_id)
    assert run.status == dg.DagsterRunStatus.QUEUED
    origin = run.remote_job_origin
    assert (origin.location_name, origin.repository_origin.repository_name) == ("batch_pipeline", "__repository__")
    assert run.tags["dagster/partition"] == "服务-1"
    assert run.execution_plan_snapshot_id is not None


def test_a_service_at_work_is_not_launched_again(instance, place):
    launch(place.parameters(), wait=False, instance=instance)
    with pytest.raises(ServiceBusy, match="flowers is deploying"):
        launch(place.parameters(), wait=True, instance=instance)


def test_the_limit_on_services_is_kept(instance, place, monkeypatch):
    monkeypatch.setenv("BATCH_PIPELINE_MAX_SERVICES", "1")
    launch(place.parameters(), wait=True, instance=instance)
    with pytest.raises(LimitReached, match="1 services exist"):
        launch(place.parameters(name="more", output_path=f"file://{place.root}/more/"), wait=True, instance=instance)
    again = launch(place.parameters(), wait=True, instance=instance)
    assert again.state == "finished"


def test_a_run_made_elsewhere_becomes_a_service(instance, place):
    """As in the UI, where nobody asks us."""
    run = create_run(instance, place.parameters())
    execute_run(JobOrigin.own().job, run, instance)
    assert run_error(instance, run.run_id) is None
    assert partitions(instance) == {"flowers"}


def test_a_run_made_elsewhere_keeps_the_limit(instance, place, monkeypatch):
    monkeypatch.setenv("BATCH_PIPELINE_MAX_SERVICES", "1")
    launch(place.parameters(), wait=True, instance=instance)
    run = create_run(instance, place.parameters(name="more", output_path=f"file://{place.root}/more/"))
    execute_run(JobOrigin.own().job, run, instance)
    assert run_error(instance, run.run_id).code == "LimitReached"
    assert partitions(instance) == {"flowers"}


def test_an_instance_without_a_queue_can_only_wait(home, place):
    (home / "dagster.yaml").write_text(
        "run_coordinator: {module: dagster._core.run_coordinator.default_run_coordinator, class: DefaultRunCoordinator}"
    )
    with open_instance() as instance, pytest.raises(InvalidSettings, match="no run queue"):
        launch(place.parameters(), wait=False, instance=instance)
