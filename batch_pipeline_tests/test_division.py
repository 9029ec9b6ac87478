"""Division over nodes: complete, pure, balanced, and the same however the list comes."""

from __future__ import annotations

import heapq
import random
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipeline import division
from batch_pipeline.division import UNKNOWN, Inputs

SIZES = st.lists(st.one_of(st.none(), st.integers(0, 10_000_000)), min_size=1, max_size=60)


class Piece(NamedTuple):
    node: int
    start: int
    end: int | None


def divide(sizes, divisible, node_count, min_part, at_once=10**6) -> list[tuple[Piece, ...]]:
    """Each input's pieces; the list is divided `at_once` inputs at a time."""
    known = np.array([UNKNOWN if size is None else size for size in sizes], np.int64)
    may_cut = np.array(divisible, np.bool_)
    places = range(0, len(known), at_once)
    blocks = [Inputs(known[place : place + at_once], may_cut[place : place + at_once]) for place in places]
    found: list[list[Piece]] = [[] for _ in sizes]
    for pieces in division.divide(lambda: blocks, node_count, min_part):
        columns = (pieces.input, pieces.node, pieces.part, pieces.parts, pieces.start, pieces.end)
        for row, node, part, parts, start, end in zip(*(column.tolist() for column in columns), strict=True):
            assert part == len(found[row])
            assert (end == UNKNOWN) == (part == parts - 1)
            found[row].append(Piece(node, start, None if end == UNKNOWN else end))
    return [tuple(cut) for cut in found]


def loads_of(sizes, pieces, node_count) -> list[int]:
    loads = [0] * node_count
    for size, cut in zip(sizes, pieces, strict=True):
        for piece in cut:
            loads[piece.node] += (size if piece.end is None else piece.end) - piece.start
    return loads


@given(SIZES, st.integers(1, 12), st.integers(1, 100_000), st.randoms(use_true_random=False))
def test_every_byte_of_every_input_is_on_exactly_one_node(sizes, node_count, min_part, rng):
    divisible = [size is not None and rng.random() < 0.5 for size in sizes]
    pieces = divide(sizes, divisible, node_count, min_part)
    assert len(pieces) == len(sizes)
    for cut, size, may_cut in zip(pieces, sizes, divisible, strict=True):
        assert cut[0].start == 0
        assert cut[-1].end is None
        assert all(0 <= piece.node < node_count for piece in cut)
        assert [piece.end for piece in cut[:-1]] == [piece.start for piece in cut[1:]]
        if len(cut) > 1:
            assert may_cut
            bounds = [piece.start for piece in cut] + [size]
            assert all(after - before >= min_part for before, after in pairwise(bounds))


@given(SIZES, st.integers(1, 12), st.integers(1, 20))
def test_division_is_a_pure_function(sizes, node_count, at_once):
    divisible = [size is not None for size in sizes]
    assert divide(sizes, divisible, node_count, 1000, at_once) == divide(sizes, divisible, node_count, 1000)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=80), st.integers(1, 12))
def test_inputs_that_are_not_cut_are_in_runs_or_the_largest_first(sizes, node_count):
    nodes = [cut[0].node for cut in divide(sizes, [False] * len(sizes), node_count, 1)]
    assert nodes == expected(sizes, node_count)


def expected(sizes: list[int], node_count: int) -> list[int]:
    """The rule of the division, spelt out."""
    if len(sizes) <= node_count:
        return list(range(len(sizes)))
    total, begin, runs = sum(sizes), 0, []
    for size in sizes:
        runs.append(min(node_count - 1, (begin + size // 2) * node_count // total))
        begin += size
    loads = [sum(size for size, node in zip(sizes, runs, strict=True) if node == one) for one in range(node_count)]
    if max(loads) <= 1.05 * max(1, min(loads)):
        return runs
    nodes, least = [0] * len(sizes), [(0, node) for node in range(node_count)]
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        load, nodes[index] = heapq.heappop(least)
        heapq.heappush(least, (load + sizes[index], nodes[index]))
    return nodes


def test_one_large_csv_keeps_all_nodes_busy():
    (pieces,) = divide([9_000_000], [True], 3, 64 * 1024)
    assert [(piece.node, piece.start, piece.end) for piece in pieces] == [
        (0, 0, 3_000_000),
        (1, 3_000_000, 6_000_000),
        (2, 6_000_000, None),
    ]


def test_small_csvs_are_not_cut():
    assert all(len(cut) == 1 for cut in divide([1000] * 10, [True] * 10, 4, 64 * 1024))


@pytest.mark.parametrize("mean", [8, 10, 13, 16])
@pytest.mark.parametrize("divisible", [False, True])
def test_skewed_sizes_balance_within_five_per_cent(mean, divisible):
    for seed in range(10):
        sizes = np.random.default_rng(seed).lognormal(mean, 1.2, 1000).astype(int).clip(1).tolist()
        loads = loads_of(sizes, divide(sizes, [divisible] * 1000, 16, 64 * 1024), 16)
        assert max(loads) <= 1.05 * min(loads)


def test_pareto_sizes_balance_within_five_per_cent():
    rng = random.Random(7)
    sizes = [int(rng.paretovariate(1.5) * 10_000) for _ in range(1000)]
    for divisible in ([False] * 1000, [True] * 1000):
        loads = loads_of(sizes, divide(sizes, divisible, 16, 4096), 16)
        assert max(loads) / min(loads) <= 1.05


@pytest.mark.parametrize("at_once", [10**6, 7])
def test_a_list_longer_than_what_is_placed_one_by_one_balances_too(monkeypatch, at_once):
    monkeypatch.setattr(division, "LEAST_HEADS", 0)
    monkeypatch.setattr(division, "MOST_HEADS", 8)
    sizes = np.random.default_rng(3).lognormal(10, 1.8, 3000).astype(int).clip(1).tolist()
    pieces = divide(sizes, [False] * len(sizes), 4, 1, at_once)
    loads = loads_of(sizes, pieces, 4)
    assert max(loads) <= 1.05 * min(loads)
    small = [cut[0].node for size, cut in zip(sizes, pieces, strict=True) if size < np.median(sizes)]
    assert small == sorted(small)


def test_unknown_sizes_are_divided_by_count():
    nodes = [cut[0].node for cut in divide([None] * 9, [False] * 9, 3, 1)]
    assert nodes == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_with_a_node_for_each_input_each_has_its_own_from_the_first_on():
    for sizes in ([5], [1, 1000], [None, 3, 0]):
        pieces = divide(sizes, [False] * len(sizes), 4, 1)
        assert [cut[0].node for cut in pieces] == list(range(len(sizes)))
