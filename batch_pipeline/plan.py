"""The plan of a service as it is kept under `_batch/plan/`. Inputs are named by line and digest alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import orjson
from pydantic import FiniteFloat, ValidationError

from batch_pipeline.layout import OutputLayout
from batch_pipeline.locations import Location
from batch_pipeline.parameters import CsvOptions
from batch_pipeline.records import Count, damaged, read_record
from batch_pipeline.storage import Storage

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class ShardPlan:
    """One node's share: the range of the input list it lies in, and how much it is."""

    node: Count
    first_line: Count
    """A line at or shortly before the first of the share, of which it is known where it begins."""
    last_line: Count
    offset: Count
    """The byte of the manifest where `first_line` begins; 0 for a folder."""
    units: Count
    """Pieces of work: a divided CSV is several, a bad line and a repeated source are none."""
    inputs: Count
    """Lines that this node's manifests list."""
    size: Count
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
    inputs: Count
    shards: tuple[ShardPlan, ...]
    started: FiniteFloat
    """Unix time of the attempt's start."""
    attempt: Count
    made_from: str = ""
    """The fingerprint of the record that it was made for."""
    model_sha256: str = ""
    division: str = ""
    """Which division of the inputs it is: the ledger's records carry it, and those of another do not count."""


def save_plan(storage: Storage, layout: OutputLayout, plan: Plan) -> None:
    storage.write(layout.plan, orjson.dumps(asdict(plan)))


def load_plan(storage: Storage, layout: OutputLayout) -> Plan:
    """Raises ObjectNotFound, and RecordDamaged."""
    then = "all inputs are computed again"
    plan = read_record(Plan, storage, layout.plan, then=then)
    if [shard.node for shard in plan.shards] != list(range(max(1, len(plan.shards)))):
        raise damaged(layout.plan, "its shares are not one for each node", then)
    try:
        CsvOptions(**plan.csv)
    except (ValidationError, TypeError) as error:
        raise damaged(layout.plan, "csv: it holds no options of CSV files", then) from error
    return plan


def save_table(storage: Storage, location: Location, table: pl.DataFrame) -> None:
    save_tables(storage, location, [table])


def save_tables(storage: Storage, location: Location, tables: Iterable[pl.DataFrame]) -> None:
    """Writes the rows of many frames as one Parquet object, each frame a row group: never all in memory."""
    with TableFile() as file:
        for table in tables:
            file.add(table)
        file.save(storage, location)


@contextmanager
def stored_tables(storage: Storage, location: Location) -> Iterator[TableGroups]:
    """A Parquet object, to be read row group by row group as often as need be: it is fetched once, to the disk.

    Raises RecordDamaged, and so does what it gives.
    """
    import pyarrow.parquet as pq

    with tempfile.TemporaryFile(prefix="batch-pipeline-") as local:
        with storage.open(location) as stream:
            for chunk in stream:
                local.write(chunk)
        local.seek(0)
        with _damage_named(location):
            file = pq.ParquetFile(local, page_checksum_verification=True)
        with file:
            yield TableGroups(file, location)


def load_shard(storage: Storage, layout: OutputLayout, node: int, columns: list[str] | None = None) -> pl.DataFrame:
    """All rows of a node's table."""
    import polars as pl

    with stored_tables(storage, layout.shard(node)) as stored:
        return pl.concat(list(stored.of_node(node, columns)))


def load_marks(storage: Storage, layout: OutputLayout) -> pl.DataFrame:
    """Columns line and offset."""
    import polars as pl

    with stored_tables(storage, layout.marks) as stored:
        return pl.concat(list(stored.read(["line", "offset"])))


@contextmanager
def _damage_named(location: Location) -> Iterator[None]:
    """Says which table it is that can't be read."""
    import polars as pl
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError, ValueError, OverflowError, MemoryError) as error:
        what = " ".join(str(error).split()) or "there is no memory for it"
        raise damaged(location, what, _THEN) from error


class TableGroups:
    """The row groups of a Parquet file."""

    def __init__(self, file: Any, location: Location) -> None:
        self._file, self._location = file, location

    @property
    def rows(self) -> int:
        return int(self._file.metadata.num_rows)

    def read(self, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        """Frames of these columns, or of all. Raises RecordDamaged where they are not what was written."""
        for group in range(self._file.num_row_groups):
            yield self._checked(partial(self._file.read_row_group, group, columns), columns)
        if not self._file.num_row_groups:
            yield self._checked(self._file.schema_arrow.empty_table, columns)

    def of_node(self, node: int, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        """As `read`, of the table of that node."""
        for table in self.read(columns and [*dict.fromkeys((*columns, "node"))]):
            if not (table["node"] == node).all():
                raise damaged(self._location, f"it is not of node {node}", _THEN)
            yield table

    def _checked(self, read: Callable[[], Any], columns: list[str] | None) -> pl.DataFrame:
        import polars as pl

        with _damage_named(self._location):
            frame = pl.from_arrow(read())
        assert isinstance(frame, pl.DataFrame)
        kinds = _columns()
        for name in columns or [name for name in frame.columns if name in kinds]:
            if frame.schema.get(name) != kinds[name]:
                raise damaged(self._location, f"it has no column {name} of {kinds[name]}", _THEN)
            if name not in _OPTIONAL and frame[name].null_count():
                raise damaged(self._location, f"its column {name} has gaps", _THEN)
        return frame.select(columns) if columns else frame


_THEN = "what is finished may be computed again"
_OPTIONAL = ("size", "etag", "duplicate_of", "end")


def _columns() -> dict[str, Any]:
    """Of all tables."""
    import polars as pl

    texts = {"etag": pl.String, "suffix": pl.String, "digest": pl.Binary, "result": pl.Binary}
    lines = dict.fromkeys(("line", "offset", "duplicate_of"), pl.UInt64)
    numbers = dict.fromkeys(("size", "node", "part", "parts", "start", "end"), pl.Int64)
    return texts | lines | numbers | dict.fromkeys(("bad", "csv"), pl.Boolean)


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
            self._writer = pq.ParquetWriter(
                self._file, rows.schema, compression=compression, use_dictionary=packed, write_page_checksum=True
            )
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
