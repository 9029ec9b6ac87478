"""Dagster's own daemon and webserver over one DAGSTER_HOME, as processes that a test may kill; none is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from batch_pipeline.orchestration.shipped import INSTANCE, WORKSPACE
from batch_pipeline_tests.demo.playground import ask
from batch_pipeline_tests.demo.processes import left_behind, marked_environment

QUICK: dict[str, Any] = {
    "run_coordinator": {"config": {"dequeue_interval_seconds": 1}},
    "run_monitoring": {"poll_interval_seconds": 2},
}
"""What lets a test see in seconds what takes minutes otherwise."""


@dataclass
class Dagster:
    """One of Dagster's processes, leader of a group with everything it starts: code server, run workers, nodes."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int = 0

    def kill(self) -> None:
        """SIGKILL to the whole group, as when a machine goes down."""
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """What GraphQL answers; for a webserver only."""
        return ask(self.port, query, variables)

    def until(self, condition: Callable[[], Any], seconds: float = 300) -> Any:
        """The first answer of `condition` that holds; the log is shown where it does not come in time."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert self.process.poll() is None, f"it ended by itself\n{self._tail()}"
            assert time.monotonic() < deadline, f"it did not happen in {seconds:.0f} s\n{self._tail()}"
            time.sleep(0.5)
        return found

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-60:])


def prepare(home: Path, **settings: Any) -> Path:
    """Our dagster.yaml in `home`, made if need be, with `settings` merged into it key by key."""
    home.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load(INSTANCE.read_text(encoding="utf-8"))
    (home / "dagster.yaml").write_text(yaml.safe_dump(_merged(config, settings)), encoding="utf-8")
    return home


@contextmanager
def daemon(home: Path, env: Mapping[str, str] | None = None, *, workspace: Path = WORKSPACE) -> Iterator[Dagster]:
    """`dagster-daemon run`: sensors, schedules, run queue, backfills, monitoring, and the run workers they start.

    `env` goes on top of this process's environment. It is ready some seconds later: wait for what it is to do.
    """
    with _started(home, env, "daemon", ["-m", "dagster._daemon", "run", "-w", str(workspace)]) as dagster:
        yield dagster


@contextmanager
def webserver(
    home: Path, env: Mapping[str, str] | None = None, port: int | None = None, *, workspace: Path = WORKSPACE
) -> Iterator[Dagster]:
    """`dagster-webserver`, once it answers; on a free port unless told which."""
    port = port or free_port()
    command = ["-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(port), "-w", str(workspace)]
    with _started(home, env, "webserver", command, port) as dagster:
        dagster.until(lambda: _answers(port))
        yield dagster


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextmanager
def _started(
    home: Path, env: Mapping[str, str] | None, name: str, command: list[str], port: int = 0
) -> Iterator[Dagster]:
    environment, mark = marked_environment()
    # Sockets are made in it, whose paths may have 107 bytes at most.
    scratch = Path(tempfile.mkdtemp(prefix="bp-", dir="/tmp"))
    environment |= {**(env or {}), "DAGSTER_HOME": str(home), "TMPDIR": str(scratch)}
    log = home / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", *command],
            env=environment,
            cwd=home,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    dagster = Dagster(process, log, port)
    try:
        yield dagster
    finally:
        dagster.kill()
        shutil.rmtree(scratch, ignore_errors=True)
        assert left_behind(mark) == []


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5):
            return True
    except OSError:
        return False


def _merged(config: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(config)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged
