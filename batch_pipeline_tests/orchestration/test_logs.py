"""What the event log of a run says to people: a few lines a node, and never a secret or a signature."""

from __future__ import annotations

import logging
from itertools import pairwise

import dagster as dg
import pytest
from dagster._serdes import serialize_value

from batch_pipeline.locations import Location
from batch_pipeline.node.job import Progress
from batch_pipeline.orchestration.code_location import JobOrigin, create_run
from batch_pipeline.orchestration.instance import open_instance
from batch_pipeline.orchestration.launching import launch
from batch_pipeline.orchestration.saying import ProgressLog, duration, size
from batch_pipeline.shard import Shard

SECRET, SIGNATURE = "hunter2-of-the-test", "c2lnbmVk0f0a0link"
LINK = f"https://files.example.com/theirs/1.csv?AccessKeyId=AK0123&Expires=1&Signature={SIGNATURE}"


@pytest.fixture
def loud(home):
    """An instance as the UI's: what steps say is kept. (A command's own keeps standard error clean of it.)"""
    with open_instance() as instance:
        yield instance


def said(instance, run_id):
    entries = (entry for entry in instance.all_logs(run_id) if not entry.is_dagster_event)
    return [entry.user_message for entry in entries if entry.level >= logging.INFO]


def everything(instance, run_id):
    return "\n".join(serialize_value(entry) for entry in instance.all_logs(run_id))


def test_a_stand_alone_service_says_a_line_for_each_step_and_two_for_its_node(loud, place):
    place.put("c.csv", "5.1,3.5,1.4,0.2\nx,1,2,3\n")
    launched = launch(place.parameters(error_threshold=0.5), wait=True, instance=loud)
    lines = said(loud, launched.run_id)
    assert lines[0].startswith(f"file://{place.root}/in/: 3 inputs, 56 B (attempt 1)")
    assert lines[1].startswith("model iris:1.0.0 (SHA-256 ")
    assert lines[2] == "3 inputs over 1 node of cpu-2u8g, 3 a node"
    assert lines[3] == "node 0 of 1 starts on cpu-2u8g: 3 inputs, 56 B"
    assert lines[4].startswith("node 0 of 1 ends: 3 of 3 inputs done, 0 failed, 4 rows (1 failed); ")
    assert lines[5].startswith("finished: 3 inputs, 3 succeeded, 0 failed, 4 rows (1 failed); 1 manifest in file://")
    assert len(lines) == 6


def test_each_of_several_nodes_says_two_lines(loud, place):
    launched = launch(place.parameters(node_count=2), wait=True, instance=loud)
    nodes = sorted(line.split(":")[0] for line in said(loud, launched.run_id) if line.startswith("node"))
    assert nodes == [
        "node 0 of 2 ends",
        "node 0 of 2 starts on cpu-2u8g",
        "node 1 of 2 ends",
        "node 1 of 2 starts on cpu-2u8g",
    ]


def test_a_service_that_was_finished_says_so(loud, place):
    launch(place.parameters(), wait=True, instance=loud)
    lines = said(loud, launch(place.parameters(), wait=True, instance=loud).run_id)
    assert lines[0].endswith("; an earlier attempt finished them all")
    assert "nothing is left to do: no node starts" in lines
    assert not any(line.startswith("node ") for line in lines)


@pytest.mark.parametrize(("nodes", "threshold"), [(1, 1.0), (2, 0.0)])
def test_no_secret_and_no_signature_is_ever_said(loud, place, nodes, threshold):
    """Of links that are refused, and of one that is no link; in a run that fails, and in one that does not."""
    manifest = place.manifest(
        LINK,
        LINK.replace("files.example.com", "127.0.0.1"),
        LINK.replace("https:", "http:"),
        LINK.replace("https:", "httpx:"),
        place.put("a.csv"),
    )
    parameters = place.parameters(
        input_path=manifest, environment={"TOKEN": SECRET}, node_count=nodes, error_threshold=threshold
    )
    launched = launch(parameters, wait=True, instance=loud)
    assert launched.state == ("failed" if threshold == 0 else "finished")
    log = everything(loud, launched.run_id)
    assert "files.example.com/theirs/1.csv" in log
    assert SIGNATURE not in log
    assert "AK0123" not in log
    assert SECRET not in log
    assert SECRET not in str(loud.get_run_by_id(launched.run_id).tags)


def test_a_refused_service_says_no_secret_either(loud, place):
    parameters = place.parameters(input_path=place.manifest(LINK), environment={"TOKEN": SECRET})
    run = create_run(loud, parameters)
    (place.root / "models/iris/1.0.0/model.onnx").unlink()
    with dg.execute_job(JobOrigin.own().job, instance=loud, run_config=run.run_config, tags=run.tags) as result:
        assert not result.success
        log = everything(loud, result.run_id)
    assert "not normal" in log
    assert SIGNATURE not in log
    assert SECRET not in log


def shard(node_count=1, **changes):
    given = {"inputs": 3600, "size": 0, **changes}
    return Shard("flowers", 0, node_count, "cpu-2u8g", Location("bucket", "out/"), 1, 3600, {}, **given)


def hour(node_count, *, step=1, **changes):
    """What a node says in an hour in which it does one input a second."""
    lines, now = [], [0.0]
    log = ProgressLog(shard(node_count, **changes), lambda line: lines.append((now[0], line)), clock=lambda: now[0])
    for second in range(0, 3600, step):
        now[0] = float(second)
        log(Progress(done=second, units=3600, bytes_read=second * 10))
    return lines


def test_progress_is_said_less_and_less_often():
    times = [time for time, _ in hour(1)]
    assert times[:4] == [10, 30, 70, 130]
    assert {later - time for time, later in pairwise(times[3:])} == {60}


def test_many_nodes_together_do_not_flood():
    assert 256 * len(hour(256)) < 2500


def test_progress_says_rate_and_time_left():
    _, line = hour(1)[0]
    assert line == "node 0 of 1: 10 of 3,600 inputs done, 0 failed; 1.0 inputs/s, about 59 min 50 s left"


def test_the_time_left_of_one_large_input_is_told_by_its_bytes():
    lines = []
    now = [0.0]
    log = ProgressLog(shard(inputs=1, size=4000), lines.append, clock=lambda: now[0])
    log(Progress(units=1))
    now[0] = 10.0
    log(Progress(units=1, rows=500, bytes_read=1000))
    assert lines == ["node 0 of 1: 0 of 1 inputs done, 0 failed; 50 rows/s, about 30 s left"]


def test_what_an_earlier_attempt_did_counts_for_no_rate():
    lines, now = [], [0.0]
    log = ProgressLog(shard(size=4000), lines.append, clock=lambda: now[0])
    log(Progress(done=3000, units=3600))
    now[0] = 100.0
    log(Progress(done=3100, units=3600, bytes_read=100))
    assert lines == ["node 0 of 1: 3,100 of 3,600 inputs done, 0 failed; 1.0 inputs/s, about 8 min 20 s left"]


def test_no_time_is_told_before_there_is_anything_to_go_by():
    lines, now = [], [0.0]
    log = ProgressLog(shard(), lines.append, clock=lambda: now[0])
    log(Progress(units=3600))
    now[0] = 10.0
    log(Progress(units=3600))
    assert lines == ["node 0 of 1: 0 of 3,600 inputs done, 0 failed; 0.0 inputs/s"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (75, "1 min 15 s"), (3_700, "1 h 1 min")]
)
def test_durations_for_people(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (222_000_000, "222.0 MB"), (3 * 10**15, "3000.0 TB")],
)
def test_sizes_for_people(count, text):
    assert size(count) == text
