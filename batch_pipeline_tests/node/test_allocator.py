"""Freed memory is used again: the system need not clear it anew."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

BLOCK = 8 * 2**20
PAGES = BLOCK // 4096
ROUNDS = 20
SCRIPT = f"""
import resource, sys, threading
from batch_pipeline.node.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def work():
    for _ in range({ROUNDS}):
        blocks = [bytearray(b"x" * {BLOCK}) for _ in range(3)]
        del blocks

before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str, **env: str) -> int:
    """How often the system had to provide a page."""
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", SCRIPT, word]
    return int(subprocess.run(command, env=quiet | env, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another libc has no such parameters")
def test_freed_blocks_are_used_again() -> None:
    assert faults("keep") < faults("leave") / 3


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another libc has no such parameters")
def test_what_the_environment_says_is_left_alone() -> None:
    assert faults("keep", MALLOC_TRIM_THRESHOLD_="0", MALLOC_MMAP_THRESHOLD_="131072") > ROUNDS * PAGES
