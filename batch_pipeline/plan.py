"""The plan of a service as it is kept under `_batch/plan/`. Inputs are named by line and digest alone."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any

import orjson

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
    """A line at or shortly before the first of the share, of which it is known where it begins."""
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


def save_tables(storage: Storage, location: Location, tables: Iterable[pl.DataFrame]) -> None:
    """Writes the rows of many frames as one Parquet object, each frame a row group: never all in memory."""
    with TableFile() as file:
        for table in tables:
            file.add(table)
        file.save(storage, location)


@contextmanager
def stored_tables(storage: Storage, location: Location) -> Iterator[TableGroups]:
    """A Parquet object, to be read row group by row group as often as need be: it is fetched once, to the disk."""
    import pyarrow.parquet as pq

    with tempfile.TemporaryFile(prefix="batch-pipeline-") as local:
        with storage.open(location) as stream:
            for chunk in stream:
                local.write(chunk)
        local.seek(0)
        with pq.ParquetFile(local) as file:
            yield TableGroups(file)


class TableGroups:
    """The row groups of a Parquet file."""

    def __init__(self, file: Any) -> None:
        self._file = file

    @property
    def rows(self) -> int:
        return int(self._file.metadata.num_rows)

    def read(self, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        import polars as pl

        for group in range(self._file.num_row_groups):
            frame = pl.from_arrow(self._file.read_row_group(group, columns))
            assert isinstance(frame, pl.DataFrame)
            yield frame
        if not self._file.num_row_groups:
            frame = pl.from_arrow(self._file.schema_arrow.empty_table())
            assert isinstance(frame, pl.DataFrame)
            yield frame.select(columns) if columns else frame


class TableFile:
    """A Parquet file in the making on the local disk; a context manager. Each frame added is a row group."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="batch-pipeline-")  # noqa: SIM115
        self._writer: Any = None

    def add(self, table: pl.DataFrame) -> None:
        import polars as pl
        import pyarrow.parquet as pq

        rows = table.to_arrow()
        if self._writer is None:
            # Digests are as long however they are packed, and each is another.
            packed = [name for name, kind in table.schema.items() if kind != pl.Binary]
            compression = {name: "zstd" if name in packed else "none" for name in table.columns}
            self._writer = pq.ParquetWriter(self._file, rows.schema, compression=compression, use_dictionary=packed)
        if rows.num_rows:
            self._writer.write_table(rows)

    def save(self, storage: Storage, location: Location) -> None:
        self._writer.close()
        self._file.seek(0)
        with storage.open_writer(location) as target:
            while chunk := self._file.read(8 * 1024 * 1024):
                target.write(chunk)

    def __enter__(self) -> TableFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
        self._file.close()
