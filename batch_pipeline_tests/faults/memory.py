"""Code run in a process of its own, and the most memory that it had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
_PEAK = """
import re
from pathlib import Path
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1)) // 1024)
"""


def run_measured(code: str, *arguments: object) -> tuple[str, int]:
    """(what it printed, its peak in MiB)."""
    ended = subprocess.run(
        [sys.executable, "-c", code + _PEAK, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "MALLOC_ARENA_MAX": "2"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    *printed, peak = ended.stdout.splitlines()
    return "\n".join(printed), int(peak)
