"""What is finished, kept in storage: small append-only objects of JSON lines, folded when somebody needs to know."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any

import orjson

from batch_pipeline.layout import OutputLayout
from batch_pipeline.node.job import Progress, UnitError, UnitResult
from batch_pipeline.storage import Storage

if TYPE_CHECKING:
    import polars as pl

FLUSH_SECONDS = 2.0
FLUSH_RECORDS = 1000
WHOLE = -1
"""The part number of a divided CSV that has been put together."""
COMPOSED = "composed"
"""What stands in the place of the node in the names of their records."""
READ_AT_ONCE = 32

Outcome = UnitResult | UnitError


class LedgerWriter:
    """One node's pen. Records reach storage every 2 seconds or 1,000 records, and all of them when it closes.

    A failed write is kept and raised by the next `record` or at the close: a node may not go on unrecorded.
    """

    def __init__(self, storage: Storage, layout: OutputLayout, *, attempt: int, node: int) -> None:
        self._storage = storage
        self._layout = layout
        self._node = node
        last = _last_turn(storage, layout, node)
        self.is_continued = last > 0
        """Whether the node, or what put its parts together, has written before, be it in this attempt."""
        turn = max(attempt, last + 1)
        self._prefix = f"{turn:04d}-{node}-{uuid.uuid4().hex[:8]}"
        self._sequence = 0
        self._pending: list[bytes] = []
        self._progress: Progress | None = None
        self._failure: Exception | None = None
        self._guard = threading.Lock()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._flush_in_turn, name="ledger", daemon=True)

    def record(self, outcome: Outcome) -> None:
        """Takes one outcome down; any thread may call."""
        if self._failure is not None:
            raise self._failure
        with self._guard:
            self._pending.append(encode(outcome))
            full = len(self._pending) >= FLUSH_RECORDS
        if full:
            self._wake.set()

    def report(self, progress: Progress) -> None:
        """Leaves the node's progress where `services list` can read it."""
        self._progress = progress

    def __enter__(self) -> LedgerWriter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._wake.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure
        self._flush()

    def _flush_in_turn(self) -> None:
        while not self._closing:
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            try:
                self._flush()
            except Exception as failure:  # noqa: BLE001 - the edge of the thread: raised where the node meets it
                self._failure = failure
                return

    def _flush(self) -> None:
        with self._writing:
            with self._guard:
                lines, self._pending = self._pending, []
                progress, self._progress = self._progress, None
            if lines:
                name = f"{self._prefix}-{self._sequence:06d}.jsonl"
                self._storage.write(self._layout.ledger.child(name), b"".join(lines))
                self._sequence += 1
            if progress is not None:
                self._storage.write(self._layout.progress(self._node), orjson.dumps(asdict(progress)))


def encode(outcome: Outcome) -> bytes:
    """One ledger line."""
    record: dict[str, object] = {"line": outcome.line, "part": outcome.part, "digest": outcome.digest}
    if isinstance(outcome, UnitError):
        record["error"] = {"code": outcome.code, "message": outcome.message}
    else:
        record |= {"etag": outcome.etag, "size": outcome.size, "rows": outcome.rows, "failed_rows": outcome.failed_rows}
    return orjson.dumps(record) + b"\n"


def append_composed(storage: Storage, layout: OutputLayout, outcomes: Iterable[Outcome], *, attempt: int) -> None:
    """Adds the records of divided CSVs that have been put together."""
    lines = [encode(outcome) for outcome in outcomes]
    if lines:
        turn = max(attempt, _last_turn(storage, layout, None))
        object_name = f"{turn:04d}-{COMPOSED}-{uuid.uuid4().hex[:8]}-000000.jsonl"
        storage.write(layout.ledger.child(object_name), b"".join(lines))


def recorded(storage: Storage, layout: OutputLayout, node: int | None = None) -> Iterator[pl.DataFrame]:
    """All outcomes, oldest first (their names sort so), many at a time: of a unit the last one counts.

    Columns line, part, its_digest, its_etag, result_size, rows, failed_rows, and code and message of an error.
    `node`: only what that node wrote down, and the divided CSVs that have been put together.
    """
    names = (info.location for info in storage.list(layout.ledger) if node is None or _is_of(info.location.name, node))
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        while batch := list(islice(names, READ_AT_ONCE)):
            yield _table(b"".join(pool.map(storage.read, batch)))


def _last_turn(storage: Storage, layout: OutputLayout, node: int | None) -> int:
    """Turns put records in order: a node that is tried again, in one attempt too, comes after what was there before.

    Of this node and of what was put together, or, without a node, of all. 0 where there are no records.
    """
    names = (info.location.name for info in storage.list(layout.ledger))
    return max((int(name.split("-")[0]) for name in names if node is None or _is_of(name, node)), default=0)


def _is_of(name: str, node: int) -> bool:
    return name.split("-")[1] in (str(node), COMPOSED)


def _table(lines: bytes) -> pl.DataFrame:
    import polars as pl

    text, number = pl.String, pl.Int64
    schema: dict[str, Any] = {"line": pl.UInt64, "part": number, "digest": text, "etag": text, "size": number}
    schema |= {"rows": number, "failed_rows": number, "error": pl.Struct({"code": text, "message": text})}
    return (
        pl.read_ndjson(lines, schema=schema)
        .unnest("error")
        .rename({"etag": "its_etag", "size": "result_size"})
        .with_columns(its_digest=pl.col("digest").str.decode("hex"))
        .drop("digest")
    )
