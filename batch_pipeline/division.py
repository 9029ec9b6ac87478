"""How the inputs are divided over the nodes: a pure function of their sizes and the node count, block by block."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BALANCED = 1.05
"""Largest share over smallest that the contiguous division may have before the largest-first one is taken."""
MOST_HEADS = 64
"""So many inputs a node, the largest ones, are placed one by one where contiguous runs do not balance."""
LEAST_HEADS = 1 << 14
UNKNOWN = -1


@dataclass(frozen=True)
class Inputs:
    """Some inputs in order: their bytes (UNKNOWN where they are), and which may be cut."""

    sizes: NDArray[np.int64]
    divisible: NDArray[np.bool_]


@dataclass(frozen=True)
class Pieces:
    """The pieces of some inputs, in order: of which input (its place among all), which node, which part of how many,
    and its bytes [start, end), where `end` is UNKNOWN for "to its end"."""

    input: NDArray[np.int64]
    node: NDArray[np.int64]
    part: NDArray[np.int64]
    parts: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    weight: NDArray[np.int64]


Blocks = Callable[[], Iterable[Inputs]]


def divide(blocks: Blocks, node_count: int, min_part: int) -> Iterator[Pieces]:
    """Gives every input its pieces, block by block; one piece unless a divisible input is cut.

    `blocks` gives the inputs anew each time it is called. An unknown size counts as the mean of the known ones; with
    none known, all count the same. A cut never makes a piece smaller than `min_part` bytes. Contiguous runs of inputs
    where that balances; else the largest pieces first, each to the node with the least, and the many small ones that
    are left in contiguous runs that fill the nodes up.
    """
    totals = _totals(blocks, node_count)
    if totals.inputs <= node_count:
        pieces = list(_contiguous(blocks, totals, min_part))
        if all(one.parts.max(initial=1) == 1 for one in pieces):
            yield from (replace(one, node=one.input) for one in pieces)
            return
    loads, heads = _loads_and_heads(_contiguous(blocks, totals, min_part), node_count)
    if max(loads) <= BALANCED * max(1, min(loads)):
        yield from _contiguous(blocks, totals, min_part)
    else:
        yield from _largest_first(_contiguous(blocks, totals, min_part), totals, heads)


@dataclass(frozen=True)
class _Totals:
    inputs: int
    usual: int
    """What an input of unknown size weighs."""
    weight: int
    nodes: int

    def node_of(self, position: NDArray[np.int64]) -> NDArray[np.int64]:
        import numpy as np

        return np.minimum(self.nodes - 1, position * self.nodes // self.weight)


def _totals(blocks: Blocks, node_count: int) -> _Totals:
    inputs = known = size = weight = 0
    for block in blocks():
        is_known = block.sizes != UNKNOWN
        inputs += len(block.sizes)
        known += int(is_known.sum())
        size += int(block.sizes[is_known].sum())
        weight += int(block.sizes[is_known].clip(1).sum())
    usual = max(1, size // known) if known else 1
    return _Totals(inputs, usual, weight + usual * (inputs - known), node_count)


def _contiguous(blocks: Blocks, totals: _Totals, min_part: int) -> Iterator[Pieces]:
    """A run of inputs for each node; what may be cut is cut where a run ends."""
    import numpy as np

    bounds = np.array([totals.weight * node // totals.nodes for node in range(1, totals.nodes)], np.int64)
    first = begin = 0
    for block in blocks():
        weights = np.where(block.sizes == UNKNOWN, totals.usual, block.sizes).clip(1)
        ends = begin + np.cumsum(weights)
        begins = ends - weights
        after, until = np.searchsorted(bounds, begins, "right"), np.searchsorted(bounds, ends, "left")
        cut = np.flatnonzero(block.divisible & (weights >= 2 * min_part) & (until > after))
        cuts = [_cuts(bounds[after[row] : until[row]] - begins[row], weights[row], min_part) for row in cut]
        parts = np.ones(len(weights), np.int64)
        parts[cut] = [len(starts) for starts in cuts]
        rows = np.repeat(np.arange(len(weights)), parts)
        offsets = np.cumsum(parts) - parts
        part = np.arange(len(rows)) - offsets[rows]
        start, stop = np.zeros(len(rows), np.int64), weights[rows]
        for row, starts in zip(cut, cuts, strict=True):
            place = offsets[row]
            start[place : place + len(starts)] = starts
            stop[place : place + len(starts) - 1] = starts[1:]
        node = totals.node_of(begins[rows] + (start + stop) // 2)
        end = np.where(part == parts[rows] - 1, UNKNOWN, stop)
        yield Pieces(first + rows, node, part, parts[rows], start, end, stop - start)
        first += len(weights)
        begin = int(ends[-1]) if len(ends) else begin


def _cuts(bounds: Iterable[int], size: int, min_part: int) -> list[int]:
    """Where the pieces of an input begin, that runs would end in at these of its bytes."""
    starts = [0]
    for bound in bounds:
        if bound - starts[-1] >= min_part and size - bound >= min_part:
            starts.append(int(bound))
    return starts


@dataclass(frozen=True)
class _Heads:
    """The largest pieces, in the order of the list: each one's place among all pieces, and its weight."""

    place: NDArray[np.int64]
    weight: NDArray[np.int64]


def _loads_and_heads(blocks: Iterable[Pieces], node_count: int) -> tuple[list[int], _Heads]:
    """What each node would have to do, and the largest pieces; of equal ones the first."""
    import numpy as np

    most = max(LEAST_HEADS, MOST_HEADS * node_count)
    loads = np.zeros(node_count, np.int64)
    place = weight = np.zeros(0, np.int64)
    pieces = 0
    for block in blocks:
        np.add.at(loads, block.node, block.weight)
        place = np.concatenate([place, pieces + np.arange(len(block.weight))])
        weight = np.concatenate([weight, block.weight])
        kept = np.sort(np.lexsort((place, -weight))[:most])
        place, weight = place[kept], weight[kept]
        pieces += len(block.weight)
    return loads.tolist(), _Heads(place, weight)


def _largest_first(blocks: Iterable[Pieces], totals: _Totals, heads: _Heads) -> Iterator[Pieces]:
    """Longest processing time first (Graham 1969) for the heads: within 4/3 of the best division. The rest fills up."""
    import numpy as np

    placed, loads = _place(heads, totals.nodes)
    left = totals.weight - int(heads.weight.sum())
    rooms = np.cumsum(_rooms(loads, left))
    pieces = begin = 0
    for block in blocks:
        place = pieces + np.arange(len(block.weight))
        found = np.searchsorted(heads.place, place).clip(max=len(heads.place) - 1)
        is_head = heads.place[found] == place
        weights = np.where(is_head, 0, block.weight)
        ends = begin + np.cumsum(weights)
        filled = np.searchsorted(rooms, ends - weights // 2 - 1, "right").clip(max=totals.nodes - 1)
        yield replace(block, node=np.where(is_head, placed[found], filled))
        pieces += len(place)
        begin = int(ends[-1]) if len(ends) else begin


def _place(heads: _Heads, node_count: int) -> tuple[NDArray[np.int64], list[int]]:
    """The node of each head, and what each node then has."""
    import numpy as np

    nodes = np.zeros(len(heads.weight), np.int64)
    loads = [(0, node) for node in range(node_count)]
    for head in np.lexsort((heads.place, -heads.weight)).tolist():
        load, node = heapq.heappop(loads)
        nodes[head] = node
        heapq.heappush(loads, (load + int(heads.weight[head]), node))
    return nodes, [load for load, _ in sorted(loads, key=lambda one: one[1])]


def _rooms(loads: list[int], left: int) -> list[int]:
    """How much more each node takes so that, in the end, all that are not over it have the same."""
    rooms = [0] * len(loads)
    level, under = 0, 0
    order = sorted(range(len(loads)), key=lambda node: (loads[node], node))
    for under in range(1, len(order) + 1):
        level = (left + sum(loads[node] for node in order[:under])) // under
        if under == len(order) or level <= loads[order[under]]:
            break
    for node in order[:under]:
        rooms[node] = level - loads[node]
    return rooms
