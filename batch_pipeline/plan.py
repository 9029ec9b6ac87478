"""The plan of a service as it is kept under `_batch/plan/`. Inputs are named by line and digest alone."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson

from batch_pipeline.errors import ObjectNotFound
from batch_pipeline.layout import OutputLayout
from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class ShardPlan:
    """One node's share: the range of the input list it lies in, and how much it is."""

    node: int
    first_line: int
    last_line: int
    offset: int
    """The byte of the manifest where `first_line` begins; 0 for a folder."""
    units: int
    """Pieces of work: a divided CSV is several, a bad line and a repeated source are none."""
    inputs: int
    """Lines that this node's manifests list."""
    size: int
    """Known bytes."""


@dataclass(frozen=True)
class Plan:
    """What the nodes and the last step need to know. Holds no source, no secret, no signature."""

    service: str
    model: str
    model_digest: str
    request_path: str
    mapping: dict[str, Any] | None
    csv: dict[str, Any]
    join_input: bool
    input_path: str
    input_etag: str | None
    inputs: int
    shards: tuple[ShardPlan, ...]
    started: float
    """Unix time of the attempt's start."""
    attempt: int
    made_from: str = ""
    """The fingerprint of the record that it was made for."""
    model_sha256: str = ""


def save_plan(storage: Storage, layout: OutputLayout, plan: Plan) -> None:
    storage.write(layout.plan, orjson.dumps(asdict(plan)))


def load_plan(storage: Storage, layout: OutputLayout) -> Plan:
    record = orjson.loads(storage.read(layout.plan))
    shards = tuple(ShardPlan(**shard) for shard in record.pop("shards"))
    return Plan(shards=shards, **record)


def save_table(storage: Storage, location: Location, table: pl.DataFrame) -> None:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    storage.write(location, buffer.getvalue())


def load_table(storage: Storage, location: Location) -> pl.DataFrame:
    import polars as pl

    return pl.read_parquet(io.BytesIO(storage.read(location)))


def renew_offsets(storage: Storage, layout: OutputLayout, found: pl.DataFrame) -> None:
    """Keeps the first attempt's table, but for where each manifest line begins: a renewed share link may be longer.

    An attempt that ended before it had written its table did nothing else either.
    """
    try:
        kept = load_table(storage, layout.inputs)
    except ObjectNotFound:
        kept = found
    save_table(storage, layout.inputs, kept.with_columns(offset=found["offset"]))
