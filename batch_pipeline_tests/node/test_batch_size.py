"""How many rows go into a call, as calls are measured."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from batch_pipeline.node.batch_size import BatchSize


def settled(size: BatchSize, seconds: Callable[[int], float]) -> int:
    for _ in range(500):
        size.took(size.rows, seconds(size.rows))
    return size.rows


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (lambda rows: 0.001 + rows * 1e-6, 1024),  # a call costs something: as many as may be
        (lambda rows: rows * 1e-6, 8),  # it costs nothing
        (lambda rows: 0.001 + rows * (1e-6 if rows <= 64 else 1e-4), 64),  # more do not fit the cache
    ],
)
def test_it_settles_where_a_row_is_quickest(seconds: Callable[[int], float], expected: int) -> None:
    assert settled(BatchSize(8, 1024), seconds) == expected


def test_calls_that_are_not_nearly_full_say_nothing() -> None:
    size = BatchSize(8, 1024)
    for _ in range(100):
        size.took(4, 0.0001)
    assert size.rows == 8


def test_a_size_and_its_double_are_tried_in_turn() -> None:
    size = BatchSize(8, 16)
    tried = []
    for seconds in range(6, 0, -1):  # all becomes quicker meanwhile, which says nothing for the one that comes later
        tried.append(size.rows)
        size.took(size.rows, size.rows * float(seconds))
    assert tried == [8, 16, 8, 16, 8, 16]


def test_slow_calls_to_begin_with_speak_for_no_larger_size() -> None:
    size = BatchSize(8, 1024)
    for number in range(500):
        size.took(size.rows, size.rows * (3.0 if number < 8 else 1.0))
    assert size.rows == 8


def test_calls_that_never_fill_decide_nothing() -> None:
    size = BatchSize(8, 1024)
    for _ in range(500):
        size.took(5, 0.001)
    size.took(16, 0.001)
    assert size.rows == 16


def test_where_memory_ran_out_it_grows_no_more() -> None:
    size = BatchSize(8, 1024)
    while size.rows < 128:
        size.took(size.rows, 0.001)
    size.too_many(128)
    assert settled(size, lambda _: 0.001) == 64
    size.too_many(1)
    assert size.rows == 1


def test_a_clock_that_sees_no_time_pass_does_no_harm() -> None:
    assert settled(BatchSize(8, 16), lambda _: 0.0) in (8, 16)
