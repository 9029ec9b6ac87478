"""One node's share of the plan: how much it is, and the units of work in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batch_pipeline.inputs import Input
from batch_pipeline.layout import OutputLayout, result_name
from batch_pipeline.locations import Location
from batch_pipeline.node.job import Progress, Unit
from batch_pipeline.pairing import Rows
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
    made_from: str = ""
    """The fingerprint of the plan that it is of."""


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


def none_of(shard: pl.DataFrame) -> pl.Series:
    """Of a shard's units none, as finished_units would say it."""
    import polars as pl

    return pl.repeat(value=False, n=shard.height, dtype=pl.Boolean, eager=True)


def work_of(shard: pl.DataFrame, done: pl.Series) -> pl.DataFrame:
    """The units that are left to do: a bad line or a repeated source is none."""
    import polars as pl

    return shard.filter(~pl.col("bad") & pl.col("duplicate_of").is_null() & ~done)


def units_of(pairs: Iterable[tuple[Input, Rows]], layout: OutputLayout) -> Iterator[Unit]:
    """The units of work of inputs and their rows."""
    for item, rows in pairs:
        for row in rows:
            if item.source is None:
                continue
            whole = layout.result(result_name(item.name, row["suffix"]))
            yield Unit(
                line=row["line"],
                digest=row["digest"].hex(),
                source=item.source,
                # A result that no store takes is refused as what it is, not after all its parts are made.
                result=whole if row["parts"] == 1 or whole.unusable else layout.part(row["line"], row["part"]),
                part=row["part"],
                parts=row["parts"],
                start=row["start"],
                end=row["end"],
                size=row["size"],
                etag=row["etag"],
            )


def progress_before(shard: pl.DataFrame, done: pl.Series) -> Progress:
    """How far a node is before it starts: bad lines and repeated sources are no work, and earlier attempts did some."""
    import polars as pl

    listed = shard.with_columns(done=done).filter(pl.col("part") == 0)
    bad = int(listed["bad"].sum())
    repeated = listed.height - listed["duplicate_of"].null_count()
    return Progress(done=bad + repeated + int(listed["done"].sum()), failed=bad, units=listed.height)
