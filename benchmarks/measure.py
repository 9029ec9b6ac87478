"""Runs a command as a process of its own and measures all of it. What the command does is nobody's business here."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.05


class CommandFailed(Exception):
    """A measured command ended with another status than 0."""


@dataclass(frozen=True)
class Usage:
    """What one command took, from its start to its end, with all the processes it started and waited for."""

    seconds: float
    cpu: float
    """Seconds of user and system time."""
    peak: int
    """Bytes of memory that the largest of its processes ever had."""
    text: str
    """What it wrote to standard output."""


def run(command: Sequence[str], env: Mapping[str, str]) -> Usage:
    """Raises CommandFailed with the last words of the command."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            with _Peak(process.pid) as peak:
                _, status, spent = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise CommandFailed(f"{' '.join(command)}: exit status {process.returncode}\n{err.read().decode()[-4000:]}")
        return Usage(seconds, spent.ru_utime + spent.ru_stime, peak.bytes, out.read().decode())


class _Peak:
    """The kernel's high-water mark of each process of a tree, read while it runs.

    The `ru_maxrss` of wait4 would not do: it counts the memory of the parent that forked.
    """

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            for pid in _tree(self._pid):
                self.bytes = max(self.bytes, high_water(pid))


def _tree(pid: int) -> list[int]:
    found = [pid]
    with suppress(OSError):  # it ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _tree(int(child))
    return found


def high_water(pid: int) -> int:
    """Bytes of memory that the process ever had at once; 0 where it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
