"""What bounds a node's memory, and what reads ahead within those bounds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from batch_pipeline.node.ahead import read_ahead
from batch_pipeline.node.budget import ByteBudget


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
