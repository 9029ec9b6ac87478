"""Services in processes of their own: several nodes, signals, the UI's stop button, and processes that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from batch_pipeline.orchestration.launching import launch
from batch_pipeline.orchestration.runs import latest_run
from batch_pipeline.ownership import ProcessIdentity
from batch_pipeline_tests.demo.processes import MARK, left_behind, marked_environment

pytestmark = pytest.mark.executor

# As a user may write it: no `if __name__ == "__main__"`.
SCRIPT = """
import json, os, sys
from batch_pipeline.orchestration.launching import launch
from batch_pipeline.parameters import parse_parameters
from batch_pipeline.settings import Settings

print("script", file=sys.stderr)
parameters = parse_parameters(json.loads(sys.argv[1]), settings=Settings.from_environment())
launched = launch(parameters, wait=True)
print(launched.state, launched.message)
"""

POOL = "node_cpu_2u8g"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def deploy(script, home, place) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the script in a process of its own, which is not left behind."""
    started = []

    def start(**changes: object) -> subprocess.Popen[str]:
        config = json.dumps(place.parameters(**changes).to_config())
        process = subprocess.Popen(
            [sys.executable, str(script), config], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)


def is_waiting_for_its_pool(instance: dg.DagsterInstance) -> bool:
    return instance.event_log_storage.get_concurrency_info(POOL).pending_step_count > 0


def test_nodes_run_in_processes_of_their_own_and_nothing_else_is_said(instance, place, deploy):
    process = deploy(node_count=3)
    answer, errors = process.communicate(timeout=120)
    assert (answer.strip(), errors.strip()) == ("finished", "script")
    run = latest_run(instance, "batch_service", "flowers")
    pids = {
        record.dagster_event.step_key: record.dagster_event.event_specific_data.metadata["pid"].value
        for record in instance.all_logs(run.run_id)
        if record.dagster_event and record.dagster_event.event_type_value == "STEP_WORKER_STARTED"
    }
    assert len({pid for step, pid in pids.items() if "infer_on_cpu_2u8g" in step}) == 3
    assert [len(place.lines(f"infer-result-{node}.manifest")) for node in range(3)]


@pytest.mark.parametrize("node_count", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_service(instance, deploy, number, node_count):
    instance.event_log_storage.set_concurrency_slots(POOL, 0)
    process = deploy(node_count=node_count)
    until(lambda: is_waiting_for_its_pool(instance))
    process.send_signal(number)
    answer, errors = process.communicate(timeout=60)
    assert (answer.strip(), errors.strip()) == ("stopped", "script")
    assert latest_run(instance, "batch_service", "flowers").status == dg.DagsterRunStatus.CANCELED
    assert not is_waiting_for_its_pool(instance)


def test_the_stop_button_of_the_ui_stops_it(instance, place, deploy):
    instance.event_log_storage.set_concurrency_slots(POOL, 0)
    process = deploy()
    until(lambda: is_waiting_for_its_pool(instance))
    run = latest_run(instance, "batch_service", "flowers")
    instance.run_launcher.terminate(run.run_id)
    assert process.communicate(timeout=60)[0].strip() == "stopped"
    assert not (place.output / "_batch/lock.json").exists()


def test_a_killed_process_blocks_nobody(instance, place, deploy):
    instance.event_log_storage.set_concurrency_slots(POOL, 0)
    process = deploy(node_count=2)
    until(lambda: is_waiting_for_its_pool(instance))
    process.kill()
    process.wait()
    dead = latest_run(instance, "batch_service", "flowers")
    assert dead.status == dg.DagsterRunStatus.STARTED
    assert (place.output / "_batch/lock.json").exists()

    instance.event_log_storage.set_concurrency_slots(POOL, 1)
    began = time.monotonic()
    launched = launch(place.parameters(node_count=2), wait=True, instance=instance)
    assert (launched.state, launched.message) == ("finished", "")
    assert time.monotonic() - began < 25, "the dead holder's lock was waited for"
    assert instance.get_run_by_id(dead.run_id).status == dg.DagsterRunStatus.FAILURE


def test_a_step_does_not_outlive_its_run(tmp_path):
    code = """
import multiprocessing, os, time
from batch_pipeline.orchestration.orphans import die_with_run
from batch_pipeline.ownership import Owner, ProcessIdentity

def step(owner, path):
    die_with_run(owner)
    open(path, "w").write(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    import sys
    owner = Owner("run", "service", ProcessIdentity.current())
    multiprocessing.get_context("forkserver").Process(target=step, args=(owner, sys.argv[1])).start()
    time.sleep(600)
"""
    (tmp_path / "run.py").write_text(code)
    note = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, str(tmp_path / "run.py"), str(note)])
    until(lambda: note.exists() and note.read_text() != "")
    step = ProcessIdentity.of(int(note.read_text()))
    assert step.state() == "alive"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: step.state() == "gone", seconds=10)


def test_no_step_goes_on_for_a_run_whose_process_was_killed(place, deploy, monkeypatch):
    """Here the first, which has taken the folder and still reads the input list."""
    environment, mark = marked_environment()
    monkeypatch.setenv(MARK, environment[MARK])
    line = json.dumps({"source": place.put("a.csv")}) + "\n"
    (place.root / "long.manifest").write_text(line * 1_000_000)
    process = deploy(node_count=2, input_path=f"file://{place.root}/long.manifest")
    until((place.output / "_batch/lock.json").exists)
    process.kill()
    process.wait()
    assert left_behind(mark) == []
    assert [path.name for path in place.output.rglob("*") if path.is_file()] == ["lock.json"]


def test_nodes_have_the_environment_of_their_own_run(instance, place, monkeypatch):
    place.put("a.csv")
    assert launch(place.parameters(node_count=2), wait=True, instance=instance).state == "finished"
    monkeypatch.setenv("SET_BETWEEN_TWO_RUNS", "1")
    changes = {"name": "second", "output_path": f"file://{place.root}/out2/", "node_count": 2}
    second = place.parameters(**changes, environment={"TOKEN": {"env": "SET_BETWEEN_TWO_RUNS"}})
    launched = launch(second, wait=True, instance=instance)
    assert (launched.state, launched.message) == ("finished", "")
