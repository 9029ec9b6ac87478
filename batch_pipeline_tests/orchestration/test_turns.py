"""The limit of services where they were launched elsewhere, as in the UI: who gets in, and who may try again."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.execution.api import execute_run

from batch_pipeline.errors import LimitReached
from batch_pipeline.orchestration import services
from batch_pipeline.orchestration.code_location import JobOrigin, create_run
from batch_pipeline.orchestration.failures import run_error
from batch_pipeline.orchestration.launching import launch
from batch_pipeline.orchestration.names import SERVICE
from batch_pipeline.orchestration.turns import TAG_ADMISSION, admit
from batch_pipeline.settings import Settings


def parameters(place, name):
    return place.parameters(name=name, output_path=f"file://{place.root}/{name}/")


@pytest.fixture
def ui(instance, place):
    """Makes a partition and a run of it, as the UI does, and leaves the run to be started."""

    def made(name: str, **tags: str) -> dg.DagsterRun:
        instance.add_dynamic_partitions(SERVICE, [name])
        run = create_run(instance, parameters(place, name))
        instance.add_run_tags(run.run_id, tags)
        return instance.get_run_by_id(run.run_id)

    return made


@pytest.fixture
def start(instance):
    """Executes a run; returns the code of its error."""

    def started(run: dg.DagsterRun) -> str | None:
        execute_run(JobOrigin.own().job, run, instance)
        error = run_error(instance, run.run_id)
        return error.code if error is not None else None

    return started


def test_as_many_are_let_in_as_there_is_room_for_however_many_come_at_once(ui, start, monkeypatch):
    """Whoever was launched first, in whatever order they start."""
    monkeypatch.setenv("BATCH_PIPELINE_MAX_SERVICES", "2")
    runs = [ui(name) for name in ("first", "second", "third", "fourth")]
    codes = [start(run) for run in reversed(runs)]
    assert codes == ["LimitReached", "LimitReached", None, None]


def test_one_that_was_refused_stays_so_until_there_is_room(instance, ui, start, monkeypatch):
    monkeypatch.setenv("BATCH_PIPELINE_MAX_SERVICES", "1")
    assert start(ui("first")) is None
    refused = ui("second")
    assert start(refused) == "LimitReached"
    with pytest.raises(LimitReached):
        admit(instance, SERVICE, instance.get_run_by_id(refused.run_id), Settings(max_services=1))
    assert start(ui("second")) == "LimitReached"
    # A re-execution has the tags of its parent.
    copied = instance.get_run_by_id(refused.run_id).tags[TAG_ADMISSION]
    assert start(ui("second", **{TAG_ADMISSION: copied})) == "LimitReached"
    services.delete_service(instance, "first")
    assert start(ui("second", **{TAG_ADMISSION: copied})) is None
    assert start(ui("first")) == "LimitReached"


def test_one_that_was_refused_takes_no_room(instance, place, ui, start, monkeypatch):
    monkeypatch.setenv("BATCH_PIPELINE_MAX_SERVICES", "1")
    assert start(ui("first")) is None
    assert start(ui("second")) == "LimitReached"
    services.delete_service(instance, "first")
    assert launch(parameters(place, "third"), wait=True, instance=instance).state == "finished"
    with pytest.raises(LimitReached, match="1 services exist"):
        launch(parameters(place, "second"), wait=True, instance=instance)
    assert {each.name for each in services.list_services(instance)} == {"second", "third"}


def test_one_that_was_let_in_runs_again_where_the_limit_was_lowered(ui, start, monkeypatch):
    assert [start(ui(name)) for name in ("first", "second")] == [None, None]
    monkeypatch.setenv("BATCH_PIPELINE_MAX_SERVICES", "1")
    assert [start(ui(name)) for name in ("first", "second")] == [None, None]
    assert start(ui("third")) == "LimitReached"


def test_one_that_waits_in_the_queue_has_its_place(instance, place, ui, start, monkeypatch):
    monkeypatch.setenv("BATCH_PIPELINE_MAX_SERVICES", "2")
    queued = ui("queued")
    assert launch(parameters(place, "here"), wait=True, instance=instance).state == "finished"
    assert start(ui("late")) == "LimitReached"
    assert start(queued) is None
