"""A step that met a store's passing trouble is tried again; what is permanent fails at once."""

from __future__ import annotations

import dagster as dg
import pytest

from batch_pipeline import service
from batch_pipeline.errors import AccessDenied, StorageFailed
from batch_pipeline.node.job import NodeReport, Progress
from batch_pipeline.orchestration import failures
from batch_pipeline.orchestration.launching import launch


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(failures, "RETRY_SECONDS", 0.01)


def failing(monkeypatch, step, *errors):
    """Lets the step raise these, try by try, and then do its work."""
    works, left = getattr(service, step), list(errors)

    def tried(*arguments, **named):
        if left:
            raise left.pop(0)
        return works(*arguments, **named)

    monkeypatch.setattr(service, step, tried)


def tries(instance, run_id):
    """By step that was tried again: how often."""
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)
    steps = [event.step_key.partition("[")[0].rpartition(".")[2] for event in events]
    return {step: steps.count(step) for step in steps}


@pytest.mark.parametrize(
    ("function", "step"),
    [
        ("ingest", "ingest_manifest"),
        ("plan", "fan_out"),
        ("infer", "infer_on_cpu_2u8g"),
        ("publish", "write_manifests"),
    ],
)
def test_every_step_is_tried_again_after_a_passing_failure(instance, place, monkeypatch, function, step):
    failing(monkeypatch, function, *[StorageFailed("the store is busy")] * failures.RETRIES)
    launched = launch(place.parameters(), wait=True, instance=instance)
    assert launched.state == "finished"
    assert tries(instance, launched.run_id) == {step: failures.RETRIES}


def test_a_failure_that_does_not_pass_ends_the_service_with_its_own_words(instance, place, monkeypatch):
    failing(monkeypatch, "infer", *[StorageFailed("the store is busy")] * (failures.RETRIES + 1))
    launched = launch(place.parameters(), wait=True, instance=instance)
    assert launched.state == "failed"
    assert launched.message.startswith("the store is busy")


def test_what_is_permanent_is_not_tried_again(instance, place, monkeypatch):
    failing(monkeypatch, "infer", AccessDenied("not for you"))
    launched = launch(place.parameters(), wait=True, instance=instance)
    assert launched.state == "failed"
    assert launched.message.startswith("not for you")
    assert tries(instance, launched.run_id) == {}


def test_a_node_step_that_is_lost_is_found_out_from_storage(instance, place, monkeypatch):
    """As Dagster may lose a mapped step among retries and yet go on (dagster issues 30972, 30248, 30077)."""
    monkeypatch.setattr(service, "infer", lambda shard, *_, **__: NodeReport(shard.node, Progress(), 0.0))
    launched = launch(place.parameters(), wait=True, instance=instance)
    assert launched.state == "failed"
    assert "2 of 2 inputs have no outcome" in launched.message
    assert list((place.root / "out").glob("*.manifest")) == []
