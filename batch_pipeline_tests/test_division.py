"""Division over nodes: complete, pure, balanced."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from batch_pipeline.division import divide

SIZES = st.lists(st.one_of(st.none(), st.integers(0, 10_000_000)), min_size=1, max_size=60)


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


@given(SIZES, st.integers(1, 12))
def test_division_is_a_pure_function(sizes, node_count):
    divisible = [size is not None for size in sizes]
    assert divide(sizes, divisible, node_count, 1000) == divide(list(sizes), list(divisible), node_count, 1000)


def test_one_large_csv_keeps_all_nodes_busy():
    (pieces,) = divide([9_000_000], [True], 3, 64 * 1024)
    assert [(piece.node, piece.start, piece.end) for piece in pieces] == [
        (0, 0, 3_000_000),
        (1, 3_000_000, 6_000_000),
        (2, 6_000_000, None),
    ]


def test_small_csvs_are_not_cut():
    assert all(len(cut) == 1 for cut in divide([1000] * 10, [True] * 10, 4, 64 * 1024))


def test_skewed_sizes_balance_within_five_per_cent():
    rng = random.Random(7)
    sizes = [int(rng.paretovariate(1.5) * 10_000) for _ in range(1000)]
    for divisible in ([False] * 1000, [True] * 1000):
        loads = [0] * 16
        for size, cut in zip(sizes, divide(sizes, divisible, 16, 4096), strict=True):
            for piece in cut:
                loads[piece.node] += (size if piece.end is None else piece.end) - piece.start
        assert max(loads) / min(loads) <= 1.05


def test_unknown_sizes_are_divided_by_count():
    nodes = [cut[0].node for cut in divide([None] * 9, [False] * 9, 3, 1)]
    assert nodes == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_with_a_node_for_each_input_each_has_its_own_from_the_first_on():
    for sizes in ([5], [1, 1000], [None, 3, 0]):
        pieces = divide(sizes, [False] * len(sizes), 4, 1)
        assert [cut[0].node for cut in pieces] == list(range(len(sizes)))
