"""`batch-pipeline dev`: the UI comes up over a seeded server, its Launchpad's config runs, and all of it stops."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from batch_pipeline.orchestration.names import JOB
from batch_pipeline_tests.demo.playground import COMMAND, REPOSITORY, ask, ended, playground, wait_until_up
from batch_pipeline_tests.demo.processes import left_behind, listening, marked_environment

pytestmark = [pytest.mark.server, pytest.mark.executor]


def test_the_launchpad_runs_as_it_is(tmp_path: Path) -> None:
    environment, mark = marked_environment()
    with playground(tmp_path, environment) as (process, port):
        wait_until_up(process, port)
        config = _launchpad_config(port, "iris-demo")
        assert "s3://demo/flowers/" in config
        launched = ask(
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
        assert ended(port, launched["run"]["runId"]) == "SUCCESS"
    assert left_behind(mark) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_command_line_joins_by_the_line_it_prints_and_nobody_from_elsewhere(tmp_path: Path) -> None:
    environment, mark = marked_environment()
    with playground(tmp_path, environment, end=signal.SIGHUP) as (process, port):
        wait_until_up(process, port)
        found = re.search(r"^ +export (.*)$", (tmp_path / "dev.log").read_text(), re.MULTILINE)
        assert found is not None
        listed = subprocess.run(
            ["bash", "-c", f"export {found[1]}; {COMMAND} models list"], capture_output=True, text=True, check=True
        )
        assert "iris\t1.0.0\tnormal" in listed.stdout
        server = urlsplit(re.search(r"AWS_ENDPOINT_URL_S3=(\S+)", found[1])[1]).port
        heard = listening(mark)
        assert {("127.0.0.1", port), ("127.0.0.1", server)} <= heard
        assert {address for address, _ in heard} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert left_behind(mark) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def _launchpad_config(port: int, service: str) -> str:
    query = """query Config($repository: RepositorySelector!, $set: String!, $partition: String!) {
      partitionSetOrError(repositorySelector: $repository, partitionSetName: $set) { ... on PartitionSet {
        partition(partitionName: $partition) { runConfigOrError { ... on PartitionRunConfig { yaml } } } } } }"""
    variables = {"repository": REPOSITORY, "set": f"{JOB}_partition_set", "partition": service}
    config: str = ask(port, query, variables)["partitionSetOrError"]["partition"]["runConfigOrError"]["yaml"]
    return config
