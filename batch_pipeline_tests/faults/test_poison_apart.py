"""Inputs that kill the process, in real processes: each is found and left out, and every other one is answered."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from batch_pipeline.errors import CredentialsRefused, NodeFailed, OwnershipLost
from batch_pipeline.node import apart
from batch_pipeline.node.apart import run_apart
from batch_pipeline.node.job import NodeJob, Progress, UnitError, UnitResult
from batch_pipeline.storage import Storage
from batch_pipeline_tests.faults import deadly, poisons
from batch_pipeline_tests.node.jobs import Records, job, result, rows_schema, unit


@pytest.fixture(autouse=True)
def _deadly_children(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", deadly.python_path(tmp_path_factory.mktemp("site")))


def csvs(folder: Path, values: Sequence[float]) -> list[Path]:
    """One file for each value, with a harmless row before it."""
    files = [folder / f"{number:03}.csv" for number in range(len(values))]
    for file, value in zip(files, values, strict=True):
        file.write_text(f"1\n{value}\n")
    return files


def csv_job(folder: Path, files: Sequence[Path], model=poisons.doubling, **more) -> NodeJob:
    units = [unit(file, line) for line, file in enumerate(files)]
    return job(model(folder / "m.onnx"), folder / "package", units, request=rows_schema("x"), **more)


def run(job: NodeJob, **more) -> tuple[Records, Progress, int]:
    records = Records()
    progress, _, lost = run_apart(job, Storage(allow_local=True), None, records, **more)  # type: ignore[arg-type]
    return records, progress, lost


def answered(file: Path, value: float) -> bool:
    return result(file) == f'{{"y":2.0}}\n{{"y":{value * 2}}}\n'.encode()


def test_each_deadly_file_is_left_out_and_all_others_are_answered(tmp_path: Path) -> None:
    values = [float(number) for number in range(60)]
    values[7], values[8], values[50] = deadly.SEGFAULT, deadly.KILLED, deadly.SEGFAULT
    files = csvs(tmp_path, values)
    records, progress, lost = run(csv_job(tmp_path, files))
    assert len(records.outcomes) == len(files)
    failed = {line: one for line, one in records.by_line.items() if isinstance(one, UnitError)}
    assert sorted(failed) == [7, 8, 50]
    assert {one.code for one in failed.values()} == {"engine_died"}
    assert "SIGSEGV" in failed[7].message
    assert "SIGKILL, as where memory ends" in failed[8].message
    assert all(
        answered(file, value)
        for line, (file, value) in enumerate(zip(files, values, strict=True))
        if line not in failed
    )
    assert (progress.done, progress.failed, progress.units, lost) == (60, 3, 60, 3)
    assert progress.rows == 2 * 57
    assert progress.bytes_read > 0


def test_a_process_that_dies_for_no_input_costs_none(tmp_path: Path) -> None:
    """Killed from outside once: whatever it was at is innocent, and is done by the next one."""
    values = [float(number) for number in range(300)]
    files = csvs(tmp_path, values)
    killed = []

    class Killing(Records):
        def record(self, outcome: UnitResult | UnitError) -> None:
            super().record(outcome)
            if not killed:
                killed.extend(children())
                for child in killed:
                    os.kill(child, signal.SIGKILL)

    records = Killing()
    progress, _, lost = run_apart(csv_job(tmp_path, files), Storage(allow_local=True), None, records)  # type: ignore[arg-type]
    assert killed
    assert lost == 0
    assert {type(one) for one in records.outcomes} == {UnitResult}
    assert sorted(one.line for one in records.outcomes) == list(range(300))
    assert (progress.done, progress.failed, progress.rows) == (300, 0, 600)
    assert all(answered(file, value) for file, value in zip(files, values, strict=True))


def children() -> list[int]:
    """The processes of nodes that this process has started."""
    return [child.pid or 0 for child in multiprocessing.active_children()]


def test_a_model_at_whose_loading_the_process_dies_is_no_inputs_fault(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(deadly.AT_LOADING, "1")
    with pytest.raises(NodeFailed, match=r"died while it loaded the model \(SIGSEGV\)"):
        run(csv_job(tmp_path, csvs(tmp_path, [1.0])))


def test_a_process_that_dies_at_every_input_is_given_up(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(apart, "HOPELESS", 3)
    records = Records()
    with pytest.raises(NodeFailed, match="died at 3 inputs one after the other"):
        run_apart(csv_job(tmp_path, csvs(tmp_path, [deadly.KILLED] * 9)), Storage(allow_local=True), None, records)  # type: ignore[arg-type]
    assert [one.code for one in records.outcomes if isinstance(one, UnitError)] == ["engine_died"] * 3


def test_a_file_at_which_the_model_never_comes_back_is_left_out(tmp_path: Path) -> None:
    files = csvs(tmp_path, [1.0, poisons.STUCK, 3.0])
    records, _, lost = run(csv_job(tmp_path, files, poisons.stuck, batch_seconds=3))
    assert lost == 1
    assert (records.by_line[1].code, "could not be ended" in records.by_line[1].message) == ("timed_out", True)
    assert answered(files[0], 1.0)
    assert answered(files[2], 3.0)


def test_it_stops_when_it_is_told_to(tmp_path: Path) -> None:
    files = csvs(tmp_path, [1.0] * 200)
    records = Records()
    progress, _, lost = run_apart(
        csv_job(tmp_path, files), Storage(allow_local=True), None, records, stopping=lambda: len(records.outcomes) > 3
    )  # type: ignore[arg-type]
    assert lost == 0
    assert 3 < len(records.outcomes) == progress.done <= 200
    assert not children()


def test_what_fails_there_is_raised_here(tmp_path: Path) -> None:
    made = csv_job(tmp_path, csvs(tmp_path, [1.0]), providers=("NoProvider",))
    with pytest.raises(NodeFailed, match="NoProvider is not available"):
        run(made)


def test_the_process_does_not_outlive_the_one_that_watches_over_it(tmp_path: Path) -> None:
    """A real parent, killed: its child must be gone soon after."""
    csvs(tmp_path, [1.0] * 3)
    script = (
        "import sys, os, signal\n"
        "from pathlib import Path\n"
        "from batch_pipeline_tests.faults.test_poison_apart import *\n"
        "folder = Path(sys.argv[1])\n"
        "class Killing(Records):\n"
        "    def record(self, outcome):\n"
        "        print(*children(), flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "run_apart(csv_job(folder, sorted(folder.glob('*.csv'))), Storage(allow_local=True), None, Killing())\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    (child,) = map(int, ended.stdout.split())
    assert is_soon_gone(child)


def is_soon_gone(pid: int) -> bool:
    until = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread of it must get its turn")
def test_nor_where_none_of_its_threads_gets_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csvs(tmp_path, [deadly.DEAF])
    deaf = tmp_path / "deaf"
    monkeypatch.setenv(deadly.DEAF_NOW, str(deaf))
    script = (
        "import sys, os, signal\n"
        "from pathlib import Path\n"
        "from batch_pipeline_tests.faults.test_poison_apart import *\n"
        "folder = Path(sys.argv[1])\n"
        "def stopping():\n"
        "    if (folder / 'deaf').exists():\n"
        "        print(*children(), flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "run(csv_job(folder, sorted(folder.glob('*.csv'))), stopping=stopping)\n"
    )
    # Not to a pipe, of which the end would come with that of the child.
    with (tmp_path / "told").open("w") as told:
        ended = subprocess.run([sys.executable, "-c", script, tmp_path], stdout=told, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL
    (child,) = map(int, (tmp_path / "told").read_text().split())
    assert is_soon_gone(child)


@pytest.mark.parametrize("files", [1, 2 * apart.AT_ONCE + 1])
@pytest.mark.parametrize("error", [OwnershipLost, CredentialsRefused])
def test_what_its_storage_fails_with_is_raised_here(tmp_path: Path, error: type[Exception], files: int) -> None:
    """Also where by then the process waits for another unit, and the one that watches for the end of one."""
    made = csv_job(tmp_path, csvs(tmp_path, [1.0] * files))
    with pytest.raises(error, match="not any more"):
        run_apart(made, Forbidden(error), None, Records())  # type: ignore[arg-type]


class Forbidden(Storage):
    """Nothing may be written."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__(allow_local=True)
        self.error = error

    def __reduce__(self) -> tuple[type[Storage], tuple[type[Exception]]]:
        return Forbidden, (self.error,)

    def open(self, *_: object, **__: object) -> Any:
        time.sleep(1)
        raise self.error("not any more")
