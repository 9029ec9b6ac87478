"""One node's share of the plan: its range of the input list, and its inputs, read from that list again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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
    made_from: str = ""
    """The fingerprint of the plan that it is of."""


def shard_plan(node: int, shard: pl.DataFrame) -> ShardPlan:
    """The range and the amount of one node's rows of a divided table."""
    if not shard.height:
        return ShardPlan(node, 0, 0, 0, 0, 0, 0)
    listed = shard.filter(shard["part"] == 0)
    work = shard.filter(~shard["bad"] & shard["duplicate_of"].is_null())
    size = sum(
        (end if end is not None else size or 0) - start
        for size, start, end in work.select("size", "start", "end").iter_rows()
    )
    first = shard.row(0, named=True)
    return ShardPlan(node, first["line"], shard["line"][-1], first["offset"], work.height, listed.height, size)


def shard_rows(shard: pl.DataFrame, inputs: InputList, plan: ShardPlan) -> Iterator[tuple[Input, list[dict[str, Any]]]]:
    """Each input of a shard, read from the input list again, with its rows of the shard's table.

    An object added to the folder meanwhile is passed over; one removed from it does not come.
    """
    lines = shard["line"]
    wanted = lines if inputs.is_manifest else shard["digest"]
    places = {key: place for place, key in reversed(list(enumerate(wanted)))}
    for item in inputs.read(offset=plan.offset, line=plan.first_line) if places else ():
        if inputs.is_manifest and item.line > plan.last_line:
            return
        place = places.pop(item.line if inputs.is_manifest else item.digest, None)
        if place is not None:
            rows = [shard.row(place, named=True)]
            while place + len(rows) < shard.height and lines[place + len(rows)] == rows[0]["line"]:
                rows.append(shard.row(place + len(rows), named=True))
            if rows[0]["digest"] != item.digest:
                raise InputMissing(f"input_path {inputs.location} was rewritten after it was read; run again")
            yield item, rows
        if not places:
            return


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
