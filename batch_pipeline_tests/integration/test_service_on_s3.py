"""Whole services on real S3 servers, by the command line: what a user sees in the bucket."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from batch_pipeline.deployment import Deployment
from batch_pipeline.parameters import parse_parameters
from batch_pipeline.settings import Settings
from batch_pipeline_tests.integration.command import Command
from batch_pipeline_tests.places import ROW, run_service

ODD_KEYS = ["with blank.csv", "中文 数据.csv", "a+b.csv", "100%25.csv", "#tag?.csv", "deep/er/x.csv"]


@pytest.fixture
def command(bucket: str, tmp_path: Path) -> Command:
    command = Command(tmp_path, bucket)
    command.push_iris()
    return command


@pytest.mark.executor
def test_three_nodes_over_a_manifest_of_odd_keys_and_share_links(command, s3):
    sources = [command.put(f"in/{key}", f"{ROW}\n" * count) for count, key in enumerate(ODD_KEYS, start=1)]
    sources[1] = sources[1].replace("s3://", "obs://")
    sources[2] = sources[2].removeprefix("s3:/")
    command.put("others/shared file.csv", f"{ROW}\n" * 9)
    link = command.storage.connection.client.generate_presigned_url(
        "get_object", Params={"Bucket": command.bucket, "Key": "others/shared file.csv"}, ExpiresIn=600
    )
    big = command.put("in/big.csv", f"{ROW}\n" * 3000)
    listed = [*sources, link, big, f"s3://{command.bucket}/in/missing.csv"]
    command.put("lists/all.manifest", "".join(json.dumps({"source": one}, ensure_ascii=False) + "\n" for one in listed))
    file = command.parameters(input_path=f"s3://{command.bucket}/lists/all.manifest", node_count=3, error_threshold=0.2)
    out, err = command.run("deploy", file, "--wait", "--json")
    assert json.loads(out)["state"] == "finished"
    assert "Signature" not in out + err
    entries = [entry for node in range(3) for entry in command.lines(f"out/infer-result-{node}.manifest")]
    assert sorted(entry["source"] for entry in entries) == sorted(listed[:-1])
    for count, (key, source) in enumerate(zip(ODD_KEYS, sources, strict=True), start=1):
        (entry,) = [entry for entry in entries if entry["source"] == source]
        location = f"out/infer-result/{key.rpartition('/')[2]}_result.txt"
        assert entry["inference-loc"] == f"s3://{command.bucket}/{location}"
        assert len(command.lines(location)) == count
    assert len(command.lines("out/infer-result/shared file.csv_result.txt")) == 9
    assert len(command.lines("out/infer-result/big.csv_result.txt")) == 3000
    errors = [entry for node in range(3) for entry in _errors(command, node)]
    assert [(entry["source"], entry["error"]["code"]) for entry in errors] == [(listed[-1], "not_found")]
    shown = json.loads(command.run("services", "show", "flowers", "--json")[0])
    assert (shown["state"], shown["inputs"]) == ("finished", len(listed))


def _errors(command: Command, node: int) -> list[dict[str, object]]:
    key = f"out/infer-error-{node}.manifest"
    return command.lines(key) if key in command.written("out/infer-error") else []


@pytest.mark.executor
def test_a_run_killed_as_a_process_group_is_run_again_by_name_with_no_daemon(command):
    count = 600
    for number in range(count):
        command.put(f"in/{number:04}.csv", f"{ROW}\n" * (1 + number % 3))
    file = command.parameters(node_count=3)
    process = command.start("deploy", file, "--wait", start_new_session=True)
    finished = _wait_for_records(command, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not command.written("out/infer-result-")
    finished |= _recorded(command)
    assert 0 < len(finished) < count
    before = command.written("out/infer-result/")
    out, _ = command.run("services", "run", "flowers", "--wait", "--json")
    assert json.loads(out)["state"] == "finished"
    after = command.written("out/infer-result/")
    assert len(after) == count
    again = [key for key, when in before.items() if after[key] != when]
    done = {f"out/infer-result/{line - 1:04}.csv_result.txt" for line in finished}
    assert not done & set(again)
    entries = [entry for node in range(3) for entry in command.lines(f"out/infer-result-{node}.manifest")]
    assert sorted(entry["source"] for entry in entries) == [
        f"s3://{command.bucket}/in/{number:04}.csv" for number in range(count)
    ]
    assert [one["state"] for one in json.loads(command.run("services", "list", "--json")[0])] == ["finished"]


def _recorded(command: Command) -> set[int]:
    """The lines that the ledger has as finished."""
    keys = command.written("out/_batch/ledger/")
    return {entry["line"] for key in keys for entry in command.lines(key) if "error" not in entry}


def _wait_for_records(command: Command, process) -> set[int]:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if found := _recorded(command):
            return found
        time.sleep(0.2)
    raise AssertionError(f"no record before the run ended: {process.communicate()}")


def test_an_input_whose_result_no_bucket_could_hold_fails_alone(command):
    command.put("in/ok.csv", f"{ROW}\n")
    command.put("in/" + "k" * 1017 + ".csv", f"{ROW}\n" * 1000)
    parameters = json.loads(Path(command.parameters(node_count=2, error_threshold=0.5)).read_text())
    deployment = Deployment(Settings.from_environment(command.environment))
    summary = run_service(parse_parameters(parameters, settings=deployment.settings), deployment)
    assert (summary.state, summary.succeeded) == ("finished", 1)
    assert [error["code"] for error in summary.first_errors] == ["name_too_long"]
