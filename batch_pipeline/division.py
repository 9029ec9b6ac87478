"""How the inputs are divided over the nodes: a pure function of their sizes and the node count."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

BALANCED = 1.05
"""Largest share over smallest that the contiguous division may have before the largest-first one is taken."""


@dataclass(frozen=True)
class Piece:
    """The bytes [start, end) of one input, on one node; `end` is None for "to its end"."""

    node: int
    start: int = 0
    end: int | None = None


def divide(
    sizes: Sequence[int | None], divisible: Sequence[bool], node_count: int, min_part: int
) -> list[tuple[Piece, ...]]:
    """Gives every input its pieces, in input order; one piece unless a divisible input is cut.

    `sizes` are bytes, None where unknown (then the mean of the known counts; with none known, all count the same).
    A cut never makes a piece smaller than `min_part` bytes. Contiguous runs of inputs where that balances, else the
    largest first to the node with the least.
    """
    known = [size for size in sizes if size is not None]
    usual = max(1, sum(known) // len(known)) if known else 1
    weights = [max(1, usual if size is None else size) for size in sizes]
    pieces = _contiguous(weights, divisible, node_count, min_part)
    if len(weights) <= node_count and all(len(cut) == 1 for cut in pieces):
        return [(Piece(node),) for node in range(len(weights))]
    if any(divisible) or _imbalance(weights, pieces, node_count) <= BALANCED:
        return pieces
    return _largest_first(weights, node_count)


def _contiguous(
    weights: Sequence[int], divisible: Sequence[bool], node_count: int, min_part: int
) -> list[tuple[Piece, ...]]:
    total = sum(weights)
    bounds = [total * node // node_count for node in range(1, node_count)]
    pieces: list[tuple[Piece, ...]] = []
    begin = 0
    for weight, may_cut in zip(weights, divisible, strict=True):
        first = _node_of(begin + weight // 2, total, node_count)
        if may_cut and weight >= 2 * min_part:
            pieces.append(_cut(begin, weight, bounds, min_part, total, node_count))
        else:
            pieces.append((Piece(first),))
        begin += weight
    return pieces


def _cut(begin: int, size: int, bounds: Sequence[int], min_part: int, total: int, node_count: int) -> tuple[Piece, ...]:
    cuts = [0]
    for bound in bounds:
        cut = bound - begin
        if cut - cuts[-1] >= min_part and size - cut >= min_part:
            cuts.append(cut)
    ends: list[int | None] = [*cuts[1:], None]
    middles = [begin + (start + (size if end is None else end)) // 2 for start, end in zip(cuts, ends, strict=True)]
    return tuple(
        Piece(_node_of(middle, total, node_count), start, end)
        for middle, start, end in zip(middles, cuts, ends, strict=True)
    )


def _node_of(position: int, total: int, node_count: int) -> int:
    return min(node_count - 1, position * node_count // total)


def _imbalance(weights: Sequence[int], pieces: Sequence[tuple[Piece, ...]], node_count: int) -> float:
    loads = [0] * node_count
    for weight, (piece, *_) in zip(weights, pieces, strict=True):
        loads[piece.node] += weight
    return max(loads) / max(1, min(loads))


def _largest_first(weights: Sequence[int], node_count: int) -> list[tuple[Piece, ...]]:
    """Longest processing time first (Graham 1969): within 4/3 of the best division."""
    nodes = [0] * len(weights)
    loads = [(0, node) for node in range(node_count)]
    for index in sorted(range(len(weights)), key=lambda index: (-weights[index], index)):
        load, node = heapq.heappop(loads)
        nodes[index] = node
        heapq.heappush(loads, (load + weights[index], node))
    return [(Piece(node),) for node in nodes]
