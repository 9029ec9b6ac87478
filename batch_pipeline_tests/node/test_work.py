"""What is ready before a node's threads start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from batch_pipeline_tests.node.jobs import result

FIRST_MEETING = """
import sys
import time
from pathlib import Path

import polars._dependencies as dependencies

from batch_pipeline.node.job import UnitResult
from batch_pipeline_tests.node.jobs import job, rows_schema, run, unit

imported = dependencies.import_module


def slowly(name):
    module = imported(name)
    time.sleep(0.5)  # long enough for another thread to ask for it as well
    return module


dependencies.import_module = slowly
folder = Path(sys.argv[1])
units = [unit(path, line) for line, path in enumerate(sorted(folder.glob("*.csv")))]
records, *_ = run(job("logistic", folder / "model", units, request=rows_schema("a", "b", "c", "d"), threads=4))
for outcome in records.outcomes:
    assert isinstance(outcome, UnitResult), outcome
"""


def test_threads_that_first_hand_polars_an_array_at_once_do_not_hurt_each_other(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.csv").write_text("5.1,3.5,1.4,0.2\n" * 1000)
    command = [sys.executable, "-c", FIRST_MEETING, str(tmp_path)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert [result(tmp_path / f"{number}.csv").count(b"\n") for number in range(8)] == [1000] * 8
