from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from batch_pipeline.cli.output import clean, duration, print_fields, print_table
from batch_pipeline.cli.progress import Rate, counts, live_progress
from batch_pipeline.node.job import Progress


def test_a_table_elsewhere_than_on_a_terminal_is_tab_separated(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "N"), [("服务\t1", 1), (None, True)], right=("N",))
    assert capsys.readouterr().out == "NAME\tN\n服务\\t1\t1\n\ttrue\n"


def test_a_table_on_a_terminal_is_aligned_by_width() -> None:
    code = (
        "from batch_pipeline.cli.output import print_table\n"
        "print_table(('NAME', 'STATE'), [('服务', 'running'), ('ab', '[red]x[/red]')])"
    )
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stdout=theirs, check=True, env={**os.environ, "TERM": "dumb"})
    os.close(theirs)
    lines = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    assert [line.strip() for line in lines if line.strip()][2:] == ["服务   running", "ab     [red]x[/red]"]


def test_fields_stand_below_one_another(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields({"name": "a", "csv": {"header": False}, "none": None})
    assert capsys.readouterr().out == 'name  a\ncsv   {"header": false}\nnone\n'


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert clean("a\x1b[31mb\n\u202ec") == "a\\x1b[31mb\\n\\u202ec"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (4.21, "4.2 s"), (59.96, "60.0 s"), (185, "3:05"), (3723.4, "1:02:03")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_progress_counts_inputs_rows_and_failures() -> None:
    clock = iter([0.0, 1.0, 3.0, 4.0])
    rate = Rate(lambda: next(clock))
    assert rate.of(Progress(done=9, units=10, rows=9000)) == ""
    assert rate.of(Progress(units=10)) == ""
    progress = Progress(done=3, failed=1, units=10, rows=4000, failed_rows=5)
    assert counts(progress, rate.of(progress)) == "3/10 inputs (1 failed), 4,000 rows (5 failed), 2,000 rows/s"
    assert counts(Progress(done=1, units=2)) == "1/2 inputs"
    assert Rate(lambda: next(clock)).of(Progress(done=1, units=2)) == ""


def test_progress_is_quiet_where_nobody_looks() -> None:
    with live_progress() as show:
        assert show is None
