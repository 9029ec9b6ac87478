"""What bounds a node's memory, and what reads ahead within those bounds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_pipeline.errors import NodeFailed
from batch_pipeline.locations import Location
from batch_pipeline.node import run as run_module
from batch_pipeline.node import worker
from batch_pipeline.node.ahead import read_ahead
from batch_pipeline.node.budget import ByteBudget
from batch_pipeline.node.job import Unit
from batch_pipeline.node.run import run_node
from batch_pipeline.storage import Storage
from batch_pipeline.storage.objects import Stream
from batch_pipeline_tests.node.jobs import Records, job, rows_schema, unit


def test_chunks_read_ahead_are_the_same_chunks() -> None:
    with ThreadPoolExecutor(1) as readers:
        assert list(read_ahead(iter([b"a", b"b", b"c"]), readers)) == [b"a", b"b", b"c"]
        assert list(read_ahead(iter([]), readers)) == []


def test_what_reading_raises_comes_in_its_place() -> None:
    def broken() -> Iterator[bytes]:
        yield b"a"
        raise OSError("gone")

    with ThreadPoolExecutor(1) as readers:
        chunks = read_ahead(broken(), readers)
        assert next(chunks) == b"a"
        with pytest.raises(OSError, match="gone"):
            next(chunks)


def test_nothing_is_read_once_the_reader_is_closed() -> None:
    reading: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            reading.append(1)
            yield b"a"

    with ThreadPoolExecutor(1) as readers:
        chunks = read_ahead(endless(), readers)
        next(chunks)
        chunks.close()
        assert len(reading) <= 2


def test_a_budget_is_never_exceeded_but_by_one_alone() -> None:
    budget = ByteBudget(10)
    held = most = 0
    lock = threading.Lock()

    def hold(size: int) -> None:
        nonlocal held, most
        with budget.holding(size):
            with lock:
                held += size
                most = max(most, held) if size <= 10 else most
                assert size <= 10 or held == size
            with lock:
                held -= size

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(hold, [3, 4, 5, 25, 9, 1, 2] * 20))
    assert most <= 10


class CountingStorage(Storage):
    """A storage that knows how many of its objects are open at once, at most."""

    def __init__(self) -> None:
        super().__init__(allow_local=True)
        self.now = self.most = 0
        self.lock = threading.Lock()

    def open(self, location: Location, *span: Any, **more: Any) -> Stream:
        stream = super().open(location, *span, **more)
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        close = stream.close

        def closed() -> None:
            with self.lock:
                self.now -= 1
            close()

        stream.close = closed  # type: ignore[method-assign]
        return stream


def test_a_large_csv_is_not_opened_before_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LARGE_CSVS_AT_ONCE", 1)
    line = "1,2,3,4," + "x" * 2000 + "\n"
    units = []
    for number in range(4):
        path = tmp_path / f"{number}.csv"
        path.write_text(line * (worker.SMALL_CSV // len(line) + 2))
        units.append(unit(path, number, size=path.stat().st_size))
    storage, records = CountingStorage(), Records()
    names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    made = job("logistic", tmp_path / "package", units, request=rows_schema(*names))
    run_node(made, storage, None, records)  # type: ignore[arg-type]
    assert len(records.outcomes) == 4
    assert storage.most == 1


def test_a_long_list_is_read_no_further_than_its_units_are_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing gets done, and again while it does."""
    taken = done = 0
    ahead: list[int] = []
    go_on = threading.Event()
    lock = threading.Lock()

    def units() -> Iterator[Unit]:
        nonlocal taken
        for number in range(10 * run_module.IN_WAITING):
            taken += 1
            ahead.append(taken - done)
            if taken == run_module.IN_WAITING + run_module.AT_ONCE:
                threading.Timer(0.3, go_on.set).start()
            yield unit(tmp_path / "a.csv", number)

    def process(self: worker.Worker, units: list[Unit]) -> None:
        nonlocal done
        go_on.wait(20)
        with lock:
            done += len(units)

    monkeypatch.setattr(worker.Worker, "process", process)
    work = replace(job("logistic", tmp_path / "m", request=rows_schema("a", "b", "c", "d")), units=units())
    run_node(work, Storage(allow_local=True), None, Records())  # type: ignore[arg-type]
    assert go_on.is_set()
    assert taken == done == 10 * run_module.IN_WAITING
    assert max(ahead) <= run_module.IN_WAITING + run_module.AT_ONCE + 1


def test_a_worker_that_fails_ends_the_node_though_the_list_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def units() -> Iterator[Unit]:
        number = 0
        while not ended.is_set():
            number += 1
            yield unit(tmp_path / "a.csv", number)

    def process(self: worker.Worker, units: list[Unit]) -> None:
        if any(one.line == 1000 for one in units):
            raise NodeFailed("no more")

    monkeypatch.setattr(worker.Worker, "process", process)
    work = replace(job("logistic", tmp_path / "m", request=rows_schema("a", "b", "c", "d")), units=units())
    guard = threading.Timer(20, ended.set)
    guard.start()
    with pytest.raises(NodeFailed, match="no more"):
        run_node(work, Storage(allow_local=True), None, Records())  # type: ignore[arg-type]
    guard.cancel()
    assert not ended.is_set()
