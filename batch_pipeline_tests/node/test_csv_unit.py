"""Small CSVs that are answered as one: each has the lines, rows and errors that it has alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batch_pipeline.errors import InputFailed
from batch_pipeline.node import csv_rows, worker
from batch_pipeline.node import run as run_module
from batch_pipeline.node.csv_lines import Lines, joined_lines
from batch_pipeline.node.csv_unit import CsvWork
from batch_pipeline.node.job import Unit, UnitError, UnitResult
from batch_pipeline.node.work import opened_work
from batch_pipeline.parameters import CsvOptions
from batch_pipeline_tests.node.jobs import job, result, rows_schema, run, unit

FOUR = rows_schema("a", "b", "c", "d")
GOOD = b"5.1,3.5,1.4,0.2"
PIECES = [
    GOOD,
    GOOD + b"\n",
    b"1,2,3,4\r\n",
    b"\n",
    b"\r\n",
    b"\r",
    b"1,2,3\n",
    b"1,x,3,4\n",
    b"1,2,,4\n",
    b'"1",2,3,4\n',
    b'"1\n",2,3,4\n',
    b'1,2,3,"',
    b"\xff,2,3,4\n",
    b"a,b,c,d\n",
    b"d,c,b,a,e\r\n",
    b"a,b\n",
    b"\xef\xbb\xbf",
    b"\x1f\x8b",
]
FILES = st.lists(st.lists(st.sampled_from(PIECES), max_size=6).map(b"".join), min_size=1, max_size=7)


@contextmanager
def opened(folder: Path, csv: CsvOptions, **more: Any) -> Iterator[CsvWork]:
    rule = {"type": "object", "properties": {"rows": {"type": "array", "items": [{"properties": BY_NAME}]}}}
    wanted = job("logistic", folder, request=FOUR, csv=csv, rule=rule if csv.header else None, **more)
    with opened_work(wanted) as work:
        assert isinstance(work, CsvWork)
        yield work


BY_NAME = {name: {"type": "number", "column": name} for name in "abcd"}


def alone(work: CsvWork, file: bytes) -> tuple[bytes, int, int] | str:
    try:
        return told(joined_lines(work.lines([file])))
    except InputFailed as error:
        return told(error)


def told(found: Lines | InputFailed) -> tuple[bytes, int, int] | str:
    return (
        f"{found.code}: {found.message}"
        if isinstance(found, InputFailed)
        else (found.text, found.rows, found.failed_rows)
    )


@pytest.fixture(scope="module", params=["plain", "header", "multiline", "joined"])
def work(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CsvWork]:
    csv = CsvOptions(header=request.param in ("header", "joined"), multiline=request.param == "multiline")
    with opened(tmp_path_factory.mktemp("m"), csv, join_input=request.param == "joined") as found:
        yield found


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=FILES, quick=st.booleans())
@example(files=[b"", b""], quick=False)
@example(files=[GOOD, GOOD + b"\r", GOOD], quick=False)
@example(files=[b'a,b,c,d\n1,2,3,"4', b"a,b,c,d\n1,2,3,4"], quick=True)
def test_files_that_go_together_have_what_they_have_alone(work: CsvWork, files: list[bytes], quick: bool) -> None:
    """`quick`: however few rows they are, the reader of large blocks reads them."""
    expected = [alone(work, file) for file in files]
    with pytest.MonkeyPatch.context() as patch:
        if quick:
            patch.setattr(csv_rows, "SMALL_BLOCK", 0)
        assert [told(found) for found in work.lines_of(files)] == expected


def test_files_of_one_header_are_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path / "m", CsvOptions(header=True)) as work:
        rows = []
        submit = work.engine.submit
        monkeypatch.setattr(work.engine, "submit", lambda inputs, count: rows.append(count) or submit(inputs, count))
        work.lines_of([b"a,b,c,d\n1,2,3,4\n", b"d,c,b,a\n1,2,3,4\n5,6,7,8", b"a,b,c,d\r\n5,6,7,8"])
    assert sorted(rows) == [2, 2]


@pytest.fixture
def listed(tmp_path: Path) -> list[Unit]:
    """Tiny files, as a listing has them: some bad, one gone, one changed, one large, one that is no CSV."""
    units = []
    for number in range(40 * run_module.TOGETHER):
        path = tmp_path / f"{number}.{'txt' if number == 5 else 'csv'}"
        path.write_bytes((GOOD + b"\n") * (number % 4) + (b"1,2,x,4\n" if number % 7 == 0 else b""))
        if number == 11:
            path.write_bytes((GOOD + b"\n") * (worker.TINY_CSV // 4))
        status = path.stat()
        etag = f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
        units.append(unit(path, number, size=status.st_size, etag=etag))
    os.utime(tmp_path / "17.csv", ns=(1, 1))
    (tmp_path / "23.csv").unlink()
    units[31] = replace(units[31], result=replace(units[31].result, key=units[31].result.key + "/" + "x" * 300))
    return units


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("together", [1, 3, run_module.TOGETHER])
def test_a_node_records_each_of_the_files_that_it_takes_in_one_go(
    tmp_path: Path, listed: list[Unit], monkeypatch: pytest.MonkeyPatch, together: int, known: bool
) -> None:
    """Known: as a listing has them; a manifest says nothing of an object's size and version."""
    if not known:
        listed = [replace(one, size=None, etag=None) for one in listed]
    monkeypatch.setattr(run_module, "TOGETHER", together)
    monkeypatch.setattr(run_module, "AT_ONCE", 4)
    lots = []
    process = worker.Worker.process
    monkeypatch.setattr(worker.Worker, "process", lambda self, units: lots.append(len(units)) or process(self, units))
    records, progress, _ = run(job("logistic", tmp_path / "m", listed, request=FOUR))
    assert max(lots) == together
    assert sum(lots) == len(records.outcomes) == len(listed)
    wrong = {5: "not_csv", 23: "not_found", 31: "name_too_long"} | ({17: "changed"} if known else {})
    found = records.by_line
    assert {line: one.code for line, one in found.items() if isinstance(one, UnitError)} == wrong
    good = {line: one for line, one in found.items() if isinstance(one, UnitResult)}
    for line, one in good.items():
        text = result(tmp_path / f"{line}.csv")
        expected = worker.TINY_CSV // 4 if line == 11 else line % 4 + (line % 7 == 0)
        assert (one.rows, one.failed_rows, one.size) == (expected, line % 7 == 0, len(text))
        assert text.count(b"\n") == expected
        assert text.count(b'"not_a_number"') == (line % 7 == 0)
    assert (progress.done, progress.failed) == (len(listed), len(wrong))
    assert progress.rows == sum(one.rows or 0 for one in good.values())
    assert progress.failed_rows == sum(one.failed_rows or 0 for one in good.values())
