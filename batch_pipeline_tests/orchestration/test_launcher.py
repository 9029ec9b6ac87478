"""Our run launcher: what it says of a run's process, and how it stops a run that no code server knows."""

from __future__ import annotations

import subprocess
import sys

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

from batch_pipeline.orchestration.code_location import create_run
from batch_pipeline.orchestration.holders import holder_tag
from batch_pipeline.ownership import ProcessIdentity


@pytest.fixture
def process():
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def started(instance, place):
    """A run at work in a process of this identity."""

    def start(identity, **tags):
        run = create_run(instance, place.parameters())
        held = holder_tag(identity, run.run_id) if identity is not None else {}
        instance.add_run_tags(run.run_id, {**held, **tags})
        for kind in (dg.DagsterEventType.PIPELINE_STARTING, dg.DagsterEventType.PIPELINE_START):
            instance.report_dagster_event(dg.DagsterEvent(kind.value, run.job_name), run.run_id)
        return run.run_id

    return start


def health(instance, run_id):
    return instance.run_launcher.check_run_worker_health(instance.get_run_by_id(run_id)).status


def status(instance, run_id):
    return instance.get_run_by_id(run_id).status


def test_only_a_run_whose_process_is_gone_is_unwell(instance, started, process):
    identity = ProcessIdentity.of(process.pid)
    elsewhere = ProcessIdentity("elsewhere", "boot", 1, "1")
    ours, unknown, unheld = started(identity), started(elsewhere), started(None)
    assert health(instance, ours) == WorkerStatus.RUNNING
    process.communicate(b"\n")
    assert health(instance, ours) == WorkerStatus.FAILED
    assert health(instance, unknown) == WorkerStatus.RUNNING
    assert health(instance, unheld) == WorkerStatus.RUNNING


def test_a_run_of_the_command_line_is_asked_by_its_status(instance, started, process):
    run_id = started(ProcessIdentity.of(process.pid))
    assert instance.run_launcher.terminate(run_id)
    assert status(instance, run_id) == dg.DagsterRunStatus.CANCELING
    assert process.poll() is None


def test_a_run_whose_process_is_gone_is_stopped_at_once_and_frees_its_slots(instance, started, process):
    run_id = started(ProcessIdentity.of(process.pid))
    events = instance.event_log_storage
    events.set_concurrency_slots("node_cpu_2u8g", 1)
    assert events.claim_concurrency_slot("node_cpu_2u8g", run_id, "step").is_claimed
    process.communicate(b"\n")
    assert instance.run_launcher.terminate(run_id)
    assert status(instance, run_id) == dg.DagsterRunStatus.CANCELED
    assert not events.get_concurrency_info("node_cpu_2u8g").claimed_slots
    assert not instance.run_launcher.terminate(run_id)


def test_a_run_that_outlived_its_code_server_is_interrupted(instance, started, process):
    run_id = started(ProcessIdentity.of(process.pid), **{GRPC_INFO_TAG: '{"host": "localhost", "port": 1}'})
    assert instance.run_launcher.terminate(run_id)
    assert process.wait(timeout=60) != 0
    assert status(instance, run_id) == dg.DagsterRunStatus.CANCELING


def test_a_run_that_nobody_executes_is_not_stopped(instance, started):
    assert not instance.run_launcher.terminate(started(None))
    assert not instance.run_launcher.terminate("no-such-run")
