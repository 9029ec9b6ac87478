"""The tables and the plot, and the command line before them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.cases import CASES
from benchmarks.counts import Count
from benchmarks.main import main
from benchmarks.measure import CommandFailed, run
from benchmarks.outcome import Outcome, Work, compared
from benchmarks.workbench import REPOSITORY

TOOK = [(Work(2.0, 3.0, 2**20), Work(1.0)), (Work(1.0, 4.0, 2**20), Work(2.0)), (Work(1.0, 5.0, 2**20), Work(1.5))]
OUTCOMES = [
    compared("rows", "rows/s against a script", 1.0, TOOK, 1_000, "rows"),
    Outcome("one CSV", "growth", (-1.0, 7.0, 6.0), 5, at_least=False, unit="%"),
]
COUNTS = [Count("100 images", "requests that read an input", 1.0, 1)]


def test_a_ratio_is_of_rates_pair_by_pair() -> None:
    found = OUTCOMES[0]
    assert found.values == (0.5, 2.0, 1.5)
    assert (found.ours, found.other) == ("1,000 rows/s, 4.0 s of CPU, 1 MiB", "667 rows/s")
    assert found.reached
    assert not OUTCOMES[1].reached
    assert [round(OUTCOMES[1].share(value), 2) for value in (5, 10, 2.5, -1)] == [1, 0.5, 2, 10]


def test_a_page_keeps_what_stands_around_the_tables(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n\n{report.BEGIN}\n\nold\n\n{report.END}\n\nafter\n")
    report.write(page, OUTCOMES, COUNTS)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert (
        f"| rows | rows/s against a script | {OUTCOMES[0].ours} | 667 rows/s | 0.50 | 1.50 | 2.00 | ≥ 1 | yes |" in text
    )
    assert "| one CSV | growth |  |  | -1.00 % | 6.00 % | 7.00 % | ≤ 5 % | no |" in text
    assert "| 100 images | requests that read an input | 1 | 1 |" in text
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")


def test_a_name_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plain"])
    assert "there is no benchmark plain; there are plain_csv, ray_csv" in capsys.readouterr().err


def test_every_case_is_listed_and_every_listed_one_is_there() -> None:
    cases = Path(report.__file__).parent / "cases"
    assert sorted(CASES) == sorted(path.stem for path in cases.glob("[!_]*.py"))


def test_requirements_are_pinned_by_hash_and_name_no_address() -> None:
    lines = (REPOSITORY / "requirements-bench.txt").read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    assert any(line.startswith("ray==") for line in lines)
    assert all(re.fullmatch(r"[\w.-]+==\S+( +--hash=sha256:[0-9a-f]{64})+", line) for line in lines)


def test_a_command_is_measured_with_the_processes_it_starts() -> None:
    # 200 MB in a child, held for long enough to be seen.
    child = "import time; held = bytearray(200_000_000); time.sleep(0.5)"
    used = run([sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"], {})
    assert used.peak > 200_000_000
    assert used.seconds > 0.5
    assert used.cpu > 0


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(CommandFailed, match="exit status 3\nwrong"):
        run([sys.executable, "-c", "import sys; sys.stderr.write('wrong'); sys.exit(3)"], {})
