"""`batch-pipeline dev`: the UI comes up over a seeded server, its Launchpad's config runs, and all of it stops."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from batch_pipeline.orchestration.names import JOB, LOCATION
from batch_pipeline_tests.demo.processes import left_behind, marked_environment

pytestmark = [pytest.mark.server, pytest.mark.executor]

COMMAND = str(Path(sys.executable).with_name("batch-pipeline"))
REPOSITORY = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}


@contextmanager
def _dev(home: Path, mark: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = home / "dev.log"
    (home / "tmp").mkdir()
    with (
        log.open("w") as output,
        subprocess.Popen(
            [COMMAND, "dev", "--port", str(port)],
            env=mark | {"TMPDIR": str(home / "tmp")},
            stdout=output,
            stderr=output,
            text=True,
        ) as process,
    ):
        try:
            yield process, port
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0, log.read_text()


def _ask(port: int, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query, "variables": variables}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
    return answer["data"]


def _wait_until_up(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail("the UI did not come up")


def test_the_launchpad_runs_as_it_is(tmp_path: Path) -> None:
    environment, mark = marked_environment()
    with _dev(tmp_path, environment) as (process, port):
        _wait_until_up(process, port)
        config = _launchpad_config(port, "iris-demo")
        assert "s3://demo/flowers/" in config
        launched = _ask(
            port,
            """mutation Launch($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) {
              __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            {
                "parameters": {
                    "selector": {**REPOSITORY, "jobName": JOB},
                    "runConfigData": config,
                    "executionMetadata": {"tags": [{"key": "dagster/partition", "value": "iris-demo"}]},
                }
            },
        )["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        assert _ended(port, launched["run"]["runId"]) == "SUCCESS"
    assert left_behind(mark) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_command_line_joins_by_the_line_it_prints(tmp_path: Path) -> None:
    environment, mark = marked_environment()
    with _dev(tmp_path, environment) as (process, port):
        _wait_until_up(process, port)
        found = re.search(r"^ +export (.*)$", (tmp_path / "dev.log").read_text(), re.MULTILINE)
        assert found is not None
        listed = subprocess.run(
            ["bash", "-c", f"export {found[1]}; {COMMAND} models list"], capture_output=True, text=True, check=True
        )
        assert "iris\t1.0.0\tnormal" in listed.stdout
    assert left_behind(mark) == []


def _launchpad_config(port: int, service: str) -> str:
    query = """query Config($repository: RepositorySelector!, $set: String!, $partition: String!) {
      partitionSetOrError(repositorySelector: $repository, partitionSetName: $set) { ... on PartitionSet {
        partition(partitionName: $partition) { runConfigOrError { ... on PartitionRunConfig { yaml } } } } } }"""
    variables = {"repository": REPOSITORY, "set": f"{JOB}_partition_set", "partition": service}
    config: str = _ask(port, query, variables)["partitionSetOrError"]["partition"]["runConfigOrError"]["yaml"]
    return config


def _ended(port: int, run_id: str) -> str:
    """The status of the run once it has ended."""
    deadline = time.monotonic() + 180
    status = ""
    while time.monotonic() < deadline and status not in {"SUCCESS", "FAILURE", "CANCELED"}:
        time.sleep(1)
        query = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
        status = _ask(port, query, {"id": run_id})["runOrError"]["status"]
    return status
