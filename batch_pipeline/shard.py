"""One node's share of the plan: its range of the input list, and its inputs, read from that list again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from batch_pipeline.errors import InputMissing
from batch_pipeline.inputs import Input, InputList
from batch_pipeline.layout import OutputLayout, result_name
from batch_pipeline.locations import Location
from batch_pipeline.node.job import Progress, Unit
from batch_pipeline.plan import ShardPlan

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Shard:
    """A small reference to one node's share of the plan in storage; all that a node step needs to be given."""

    service: str
    node: int
    node_count: int
    spec: str
    output: Location
    attempt: int
    units: int
    environment: dict[str, str | dict[str, str]] = field(default_factory=dict)
    inputs: int = 0
    """Lines of the input list that it has."""
    size: int = 0
    """Known bytes of its inputs."""


class Share:
    """What one node's rows of the divided tables come to, table by table."""

    def __init__(self) -> None:
        self._first = self._last = self._units = self._inputs = self._size = 0

    def add(self, rows: pl.DataFrame) -> None:
        import polars as pl

        if rows.is_empty():
            return
        work = rows.filter(~pl.col("bad") & pl.col("duplicate_of").is_null())
        bytes_of = pl.coalesce("end", "size", pl.lit(0)) - pl.col("start")
        self._first = self._first or rows["line"][0]
        self._last = rows["line"][-1]
        self._units += work.height
        self._inputs += int((rows["part"] == 0).sum())
        self._size += int(work.select(bytes_of.sum()).item())

    def plan(self, node: int, marks: pl.DataFrame) -> ShardPlan:
        """The share in numbers. `marks`: where some lines of the manifest begin."""
        before = marks.filter(marks["line"] <= self._first)
        first, offset = before.row(-1) if before.height else (0, 0)
        return ShardPlan(node, first, self._last, offset, self._units, self._inputs, self._size)


def shard_rows(shard: pl.DataFrame, inputs: InputList, plan: ShardPlan) -> Iterator[tuple[Input, list[dict[str, Any]]]]:
    """Each input of a shard, read from the input list again, with its rows of the shard's table.

    An object added to the folder meanwhile is passed over; one removed from it does not come.
    """
    if shard.is_empty():
        return
    if inputs.is_manifest:
        yield from _by_line(shard, inputs, plan)
    else:
        yield from _by_digest(shard, inputs)


def _by_line(shard: pl.DataFrame, inputs: InputList, plan: ShardPlan) -> Iterator[tuple[Input, list[dict[str, Any]]]]:
    rows = groupby(shard.iter_rows(named=True), key=lambda row: row["line"])
    lines = shard["line"].unique(maintain_order=True)
    items = inputs.read(offset=plan.offset, line=plan.first_line, only=lines)
    for item, (line, found) in zip(items, rows, strict=False):
        its_rows = list(found)
        if item.line != line or its_rows[0]["digest"] != item.digest:
            raise InputMissing(f"input_path {inputs.location} was rewritten after it was read; run again")
        yield item, its_rows


def _by_digest(shard: pl.DataFrame, inputs: InputList) -> Iterator[tuple[Input, list[dict[str, Any]]]]:
    places = _Places(shard["digest"])
    left = shard["line"].n_unique()
    for item in inputs.read():
        place, rows = places.of(item.digest)
        if rows:
            yield item, list(shard[place : place + rows].iter_rows(named=True))
            left -= 1
        if not left:
            return


class _Places:
    """Where each digest stands in a table: 12 bytes a row."""

    def __init__(self, digests: pl.Series) -> None:
        import numpy as np
        import polars as pl

        self._digests = digests
        starts = digests.bin.slice(0, 8).bin.reinterpret(dtype=pl.UInt64).to_numpy()
        self._order = np.argsort(starts, kind="stable").astype(np.uint32)
        self._starts = starts[self._order]

    def of(self, digest: bytes) -> tuple[int, int]:
        """The first row that has it, and how many there are: a divided input's follow each other."""
        place = int(self._starts.searchsorted(int.from_bytes(digest[:8], "little")))
        rows = []
        while place < len(self._order) and self._digests[int(self._order[place])][:8] == digest[:8]:
            row = int(self._order[place])
            if self._digests[row] == digest:
                rows.append(row)
            place += 1
        return (rows[0], len(rows)) if rows else (0, 0)


def units_of(pairs: Iterable[tuple[Input, list[dict[str, Any]]]], layout: OutputLayout) -> Iterator[Unit]:
    """The units of work of a shard: not its bad lines, and a repeated source once."""
    for item, rows in pairs:
        for row in rows:
            if item.source is None or row["duplicate_of"] is not None:
                continue
            whole = layout.result(result_name(item.name, row["suffix"]))
            yield Unit(
                line=row["line"],
                digest=row["digest"].hex(),
                source=item.source,
                # A result that no store takes is refused as what it is, not after all its parts are made.
                result=whole if row["parts"] == 1 or whole.too_long else layout.part(row["line"], row["part"]),
                part=row["part"],
                parts=row["parts"],
                start=row["start"],
                end=row["end"],
                size=row["size"],
                etag=row["etag"],
            )


def progress_before(shard: pl.DataFrame, done: set[tuple[int, int]]) -> Progress:
    """How far a node is before it starts: bad lines and repeated sources are no work, and earlier attempts did some."""
    listed = shard.filter(shard["part"] == 0)
    bad = int(listed["bad"].sum())
    repeated = listed.height - listed["duplicate_of"].null_count()
    return Progress(done=bad + repeated + sum(part == 0 for _, part in done), failed=bad, units=listed.height)
