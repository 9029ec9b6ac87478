"""Find every process that descends from a test's own, by a mark in its environment."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

MARK = "DEMO_TEST_MARK"


def marked_environment() -> tuple[dict[str, str], str]:
    """An environment for a subprocess, and the mark that all its descendants will carry."""
    mark = uuid.uuid4().hex
    return os.environ | {MARK: mark}, mark


def left_behind(mark: str, seconds: float = 10) -> list[str]:
    """The command lines of marked processes that are still there after so many seconds."""
    deadline = time.monotonic() + seconds
    while (found := list(marked(mark).values())) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def marked(mark: str) -> dict[int, str]:
    """The marked processes that are there now: their command lines, by process id."""
    found = {}
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and f"{MARK}={mark}".encode() in (process / "environ").read_bytes():
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found
