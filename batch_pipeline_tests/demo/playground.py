"""`batch-pipeline dev` in a process of its own, for tests that talk to its UI."""

from __future__ import annotations

import json
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

from batch_pipeline.orchestration.names import LOCATION

COMMAND = str(Path(sys.executable).with_name("batch-pipeline"))
REPOSITORY = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}


@contextmanager
def playground(
    home: Path, mark: dict[str, str], *, end: signal.Signals = signal.SIGTERM
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Started as a shell starts a background job, with SIGINT ignored; told to stop by `end`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = home / "dev.log"
    (home / "tmp").mkdir()
    with (
        log.open("w") as output,
        subprocess.Popen(
            ["env", "--ignore-signal=INT", COMMAND, "dev", "--port", str(port)],
            env=mark | {"TMPDIR": str(home / "tmp")},
            stdout=output,
            stderr=output,
            text=True,
        ) as process,
    ):
        try:
            yield process, port
        finally:
            process.send_signal(end)
            assert process.wait(timeout=60) == 0, log.read_text()


def ask(port: int, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query, "variables": variables}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
    return answer["data"]


def wait_until_up(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail("the UI did not come up")


def ended(port: int, run_id: str) -> str:
    """The status of the run once it has ended."""
    deadline = time.monotonic() + 180
    status = ""
    while time.monotonic() < deadline and status not in {"SUCCESS", "FAILURE", "CANCELED"}:
        time.sleep(1)
        query = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
        status = ask(port, query, {"id": run_id})["runOrError"]["status"]
    return status
