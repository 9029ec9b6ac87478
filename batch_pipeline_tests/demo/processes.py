"""Find every process that descends from a test's own, by a mark in its environment."""

from __future__ import annotations

import ipaddress
import os
import struct
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = "DEMO_TEST_MARK"
_LISTEN = "0A"
"""The state of a socket in /proc/net/tcp."""


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


def listening(mark: str) -> set[tuple[str, int]]:
    """The addresses and ports on which marked processes take connections by TCP, IPv4 or IPv6."""
    inodes = {inode for process in _processes(mark) for inode in _sockets(process)}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == _LISTEN and rest[5] in inodes:
                address, _, port = local.partition(":")
                words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
                packed = b"".join(struct.pack("=I", word) for word in words)
                found.add((str(ipaddress.ip_address(packed)), int(port, 16)))
    return found


def marked(mark: str) -> dict[int, str]:
    """The marked processes that are there now: their command lines, by process id."""
    found = {}
    for process in _processes(mark):
        with suppress(FileNotFoundError, ProcessLookupError):
            found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def _processes(mark: str) -> Iterator[Path]:
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and f"{MARK}={mark}".encode() in (process / "environ").read_bytes():
                yield process
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue


def _sockets(process: Path) -> Iterator[str]:
    """The inodes of a process's sockets."""
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for opened in (process / "fd").iterdir():
            with suppress(FileNotFoundError):
                target = str(opened.readlink())
                if target.startswith("socket:["):
                    yield target[len("socket:[") : -1]
