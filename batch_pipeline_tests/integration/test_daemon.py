"""The list of services under the real daemon, run queue and UI: bursts, stops, crashes, retries, backfills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

import batch_pipeline
from batch_pipeline.errors import ServiceBusy
from batch_pipeline.orchestration import services
from batch_pipeline.orchestration.config import from_run_config
from batch_pipeline_tests.integration.installation import MANY, Installation, installation

pytestmark = pytest.mark.executor

STATES = {
    "QUEUED": "deploying",
    "STARTED": "running",
    "SUCCESS": "finished",
    "FAILURE": "failed",
    "CANCELED": "stopped",
}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("installation")) as there:
        yield there


def state(there: Installation, name: str) -> str:
    return services.show_service(there.instance, name).state


def manifests(there: Installation, name: str) -> list[Path]:
    return sorted(there.output(name).glob("infer-result-*.manifest"))


def sources(there: Installation, name: str) -> list[str]:
    return [json.loads(line)["source"] for path in manifests(there, name) for line in path.read_text().splitlines()]


def test_a_burst_of_services_queues_also_through_the_loss_of_the_daemon(there: Installation) -> None:
    there.daemon.kill()
    # Made by a tick that was killed before it could launch it.
    there.instance.add_dynamic_partitions("batch_service", ["burst-unlaunched"])
    there.make_run("burst-unlaunched")
    at_work = there.deploy("burst-at-work", folder="many", node_count=2).run_id
    names = [f"burst-{number:02}" for number in range(11)]
    for name in names:
        there.deploy(name)
    with pytest.raises(ServiceBusy):
        there.deploy(names[-1])
    there.start_daemon()
    there.until_at_work(at_work, 2)
    # With everything that it has started, as where the machine goes down.
    there.daemon.kill()
    queued = [name for name in names if there.runs_of(name)[0].status == dg.DagsterRunStatus.QUEUED]
    assert len(queued) >= 5
    there.start_daemon()
    there.daemon.until(lambda: {each.state for each in services.list_services(there.instance)} == {"finished"})

    for name in ("burst-at-work", "burst-unlaunched"):
        assert [run.status.value for run in there.runs_of(name)] == ["FAILURE", "SUCCESS"]
    assert len(sources(there, "burst-at-work")) == len(set(sources(there, "burst-at-work"))) == MANY
    assert all(len(there.runs_of(name)) == 1 for name in queued)
    for name in names:
        assert len(manifests(there, name)) == 1
        assert [run.status.value for run in there.runs_of(name)].count("SUCCESS") == 1
    succeeded = there.instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
    times = [(record.start_time or 0, record.end_time or 0) for record in succeeded]
    assert max(sum(start <= moment < end for start, end in times) for moment, _ in times) <= 2
    statuses = there.statuses()
    assert {name: STATES[status] for name, status in statuses.items()} == {
        each.name: each.state for each in services.list_services(there.instance)
    }


def test_the_stop_button_ends_the_nodes_and_what_is_done_is_kept(there: Installation) -> None:
    run_id = there.deploy("stopped", folder="many", node_count=3).run_id
    processes = there.until_at_work(run_id, 3)
    assert state(there, "stopped") == "running"
    assert there.terminate(run_id) == "TerminateRunSuccess"
    assert there.until_ended(run_id).status == dg.DagsterRunStatus.CANCELED
    there.daemon.until(lambda: {process.state() for process in processes} == {"gone"}, seconds=30)
    assert not (there.output("stopped") / "_batch/lock.json").exists()
    assert manifests(there, "stopped") == []
    (shown,) = services.list_services(there.instance, search="stopped")
    done = {path: path.stat().st_mtime_ns for path in (there.output("stopped") / "infer-result").iterdir()}
    assert (shown.state, shown.inputs) == ("stopped", MANY)
    assert 0 < len(done) < MANY

    again = services.run_service(there.instance, "stopped")
    assert there.until_ended(again.run_id).status == dg.DagsterRunStatus.SUCCESS
    assert len(sources(there, "stopped")) == MANY
    assert [path for path, when in done.items() if path.stat().st_mtime_ns != when] == []


def test_the_next_run_of_a_service_waits_in_the_queue(there: Installation) -> None:
    first = there.deploy("twice", folder="many").run_id
    process, *_ = there.until_at_work(first, 1)
    dropped, second = there.launch_from_launchpad("twice"), there.launch_from_launchpad("twice")
    assert there.terminate(dropped) == "TerminateRunSuccess"
    assert there.run(dropped).status == dg.DagsterRunStatus.CANCELED
    assert state(there, "twice") == "deploying"
    assert there.terminate(first) == "TerminateRunSuccess"
    assert there.until_ended(first).status == dg.DagsterRunStatus.CANCELED
    there.daemon.until(lambda: process.state() == "gone", seconds=30)
    assert there.until_ended(second).status == dg.DagsterRunStatus.SUCCESS
    assert len(sources(there, "twice")) == MANY
    one, two = (there.instance.get_run_record_by_id(run_id) for run_id in (first, second))
    assert one is not None
    assert two is not None
    assert two.start_time >= one.end_time


def test_a_run_of_the_page_of_an_asset_waits_in_the_queue_too(there: Installation) -> None:
    there.instance.add_dynamic_partitions("reviews", ["tuesday"])
    changes = {"input_path": f"file://{there.place.root}/many/", "if_changed": "overwrite"}
    first = there.materialize("reviews", "tuesday", **changes)
    there.daemon.until(lambda: "batch_pipeline/output" in there.run(first).tags)
    there.until_at_work(first, 1)
    second = there.materialize("reviews", "tuesday")
    assert there.run(second).tags["batch_pipeline/service"] == "reviews/tuesday"
    assert there.run(second).status == dg.DagsterRunStatus.QUEUED
    for run_id in (first, second):
        assert there.until_ended(run_id).status == dg.DagsterRunStatus.SUCCESS
    one, two = (there.instance.get_run_record_by_id(run_id) for run_id in (first, second))
    assert one is not None
    assert two is not None
    assert two.start_time >= one.end_time
    services.delete_service(there.instance, "reviews/tuesday", results=True)


def test_a_queued_service_and_all_its_runs_can_be_stopped(there: Installation) -> None:
    first = there.deploy("stopped-whole", folder="many").run_id
    there.until_at_work(first, 1)
    second = there.launch_from_launchpad("stopped-whole")
    services.stop_service(there.instance, "stopped-whole")
    for run_id in (first, second):
        assert there.until_ended(run_id).status == dg.DagsterRunStatus.CANCELED
    assert state(there, "stopped-whole") == "stopped"


def test_the_stop_button_ends_a_run_of_the_command_line(there: Installation, tmp_path: Path) -> None:
    file = tmp_path / "service.json"
    file.write_text(json.dumps({"model": "iris", **there.parameters("waited-for", folder="many", node_count=2)}))
    command = [str(Path(sys.executable).with_name("batch-pipeline")), "deploy", str(file), "--wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        (run,) = there.daemon.until(lambda: there.runs_of("waited-for"))
        there.until_at_work(run.run_id, 2)
        assert there.terminate(run.run_id) == "TerminateRunSuccess"
        process.communicate(timeout=120)
        assert process.returncode == 1
    assert state(there, "waited-for") == "stopped"
    assert not (there.output("waited-for") / "_batch/lock.json").exists()


def test_a_crashed_run_is_noticed_and_blocks_nobody(there: Installation) -> None:
    run = there.make_run("crashed", folder="many", node_count=2)
    there.instance.add_dynamic_partitions("batch_service", ["crashed"])
    there.instance.add_run_tags(run.run_id, {"dagster/max_retries": "0"})
    there.instance.submit_run(run.run_id, workspace=None)
    process, *nodes = there.until_at_work(run.run_id, 2)
    os.kill(process.pid, signal.SIGKILL)
    assert there.until_ended(run.run_id).status == dg.DagsterRunStatus.FAILURE
    there.daemon.until(lambda: {node.state() for node in nodes} == {"gone"})
    there.daemon.until(lambda: there.claimed_slots(run.run_id) == 0)
    assert state(there, "crashed") == "failed"
    assert manifests(there, "crashed") == []

    again = services.run_service(there.instance, "crashed")
    assert there.until_ended(again.run_id).status == dg.DagsterRunStatus.SUCCESS
    assert len(sources(there, "crashed")) == len(set(sources(there, "crashed"))) == MANY


def test_a_crashed_run_is_started_again_by_itself(there: Installation) -> None:
    run_id = there.deploy("retried", folder="many", node_count=2).run_id
    process, *_ = there.until_at_work(run_id, 2)
    os.kill(process.pid, signal.SIGKILL)
    first, second = there.daemon.until(lambda: runs if len(runs := there.runs_of("retried")) == 2 else None)
    assert there.until_ended(second.run_id).status == dg.DagsterRunStatus.SUCCESS
    assert there.run(first.run_id).status == dg.DagsterRunStatus.FAILURE
    assert second.step_keys_to_execute is None
    assert state(there, "retried") == "finished"
    assert len(sources(there, "retried")) == len(set(sources(there, "retried"))) == MANY


def test_a_service_that_failed_by_itself_is_not_started_again(there: Installation) -> None:
    run = there.until_ended(there.deploy("doomed", folder="models").run_id)
    assert run.status == dg.DagsterRunStatus.FAILURE
    # Dagster writes the tag after the status, in a transaction of its own.
    assert there.daemon.until(lambda: there.run(run.run_id).tags.get("dagster/will_retry")) == "false"


def test_a_backfill_runs_each_service_with_its_own_parameters(there: Installation) -> None:
    first = there.deploy("joined", join_input=True, description="first").run_id
    second = there.deploy("divided", node_count=2, error_threshold=0.5).run_id
    there.until_ended(first)
    there.until_ended(second)
    services.describe_service(there.instance, "joined", "edited")
    there.backfill("joined", "divided")
    for name, changes in (("joined", {"join_input": True}), ("divided", {"node_count": 2, "error_threshold": 0.5})):
        there.daemon.until(lambda name=name: len(there.runs_of(name)) == 2)
        one, two = there.runs_of(name)
        assert there.until_ended(two.run_id).status == dg.DagsterRunStatus.SUCCESS
        ours = from_run_config(two.run_config)
        assert ours is not None
        assert changes.items() <= ours.items()
        assert {**ours, "description": ""} == {**(from_run_config(one.run_config) or {}), "description": ""}
    assert services.show_service(there.instance, "joined").description == "edited"

    third = there.reexecute(first)
    assert there.until_ended(third).status == dg.DagsterRunStatus.SUCCESS
    assert services.show_service(there.instance, "joined").description == "edited"


def test_declared_services_stand_in_the_same_list(there: Installation) -> None:
    there.instance.add_dynamic_partitions("reviews", ["monday"])
    run_id = there.launch_from_launchpad("monday", "deploy_reviews")
    assert state(there, "reviews/monday") in ("deploying", "running", "finished")
    assert there.until_ended(run_id).status == dg.DagsterRunStatus.SUCCESS
    assert len(batch_pipeline.load_results("reviews/monday")) == 2
    services.describe_service(there.instance, "reviews/monday", "edited")
    again = services.run_service(there.instance, "reviews/monday")
    assert there.until_ended(again.run_id).status == dg.DagsterRunStatus.SUCCESS
    shown = services.show_service(there.instance, "reviews/monday")
    assert (shown.state, shown.description, shown.run_id) == ("finished", "edited", again.run_id)

    there.until_ended(there.launch_from_launchpad("ratings", "deploy_ratings"))
    assert state(there, "ratings/ratings") == "finished"
    assert services.delete_service(there.instance, "ratings/ratings", results=True) > 0
    assert services.delete_service(there.instance, "reviews/monday", results=True) > 0
    assert not [each for each in services.list_services(there.instance) if "/" in each.name]
    assert not there.instance.has_dynamic_partition("reviews", "monday")
