"""What is finished, kept in storage: small append-only objects of JSON lines, folded when somebody needs to know."""

from __future__ import annotations

import logging
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any

import orjson

from batch_pipeline.layout import OutputLayout
from batch_pipeline.locations import Location
from batch_pipeline.node.job import Progress, UnitError, UnitResult
from batch_pipeline.records import damaged
from batch_pipeline.storage import ObjectInfo, Storage

if TYPE_CHECKING:
    import polars as pl

FLUSH_SECONDS = 2.0
FLUSH_RECORDS = 1000
WHOLE = -1
"""The part number of a divided CSV that has been put together."""
COMPOSED = "composed"
"""What stands in the place of the node in the names of their records."""
READ_AT_ONCE = 32
MOST_RECORDS = 10_000
"""In one object."""
MOST_BYTES = 8 * 2**20
"""Of records in one object, unless a single one has more."""
LARGEST = 64 * 2**20
"""Bytes of an object that is read: several times what is written."""
DIGEST_BYTES = 32
_NAME = re.compile(
    r"(?P<turn>[0-9]{4,9})-(?P<of>[0-9]{1,9}|composed)(-(?P<division>[0-9a-f]{16}))?-[0-9a-f]+-[0-9]{6,9}\.jsonl"
)
_THEN = "what it told of is computed again"

_log = logging.getLogger(__name__)

Outcome = UnitResult | UnitError


class LedgerWriter:
    """One node's pen. Records reach storage every 2 seconds or 1,000 records, and all of them when it closes.

    A failed write is kept and raised by the next `record` or at the close: a node may not go on unrecorded.
    """

    def __init__(self, storage: Storage, layout: OutputLayout, *, attempt: int, node: int, division: str = "") -> None:
        """`division`: that of the plan; records of another do not count."""
        self._storage = storage
        self._layout = layout
        self._node = node
        last = _last_turn(storage, layout, division, node)
        self.is_continued = last > 0
        """Whether the node, or what put its parts together, has written before, be it in this attempt."""
        turn = max(attempt, last + 1)
        self._prefix = _prefix(turn, node, division)
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
            for text in _objects_of(lines):
                self._storage.write(self._layout.ledger.child(f"{self._prefix}-{self._sequence:06d}.jsonl"), text)
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


def append_composed(
    storage: Storage, layout: OutputLayout, division: str, outcomes: Iterable[Outcome], *, attempt: int
) -> None:
    """Adds the records of divided CSVs that have been put together."""
    lines = [encode(outcome) for outcome in outcomes]
    if lines:
        turn = max(attempt, _last_turn(storage, layout, division, None))
        prefix = _prefix(turn, COMPOSED, division)
        for number, text in enumerate(_objects_of(lines)):
            storage.write(layout.ledger.child(f"{prefix}-{number:06d}.jsonl"), text)


def _objects_of(lines: Sequence[bytes]) -> Iterator[bytes]:
    """What the objects hold that so many lines become."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        if held and (len(held) == MOST_RECORDS or size + len(line) > MOST_BYTES):
            yield b"".join(held)
            held, size = [], 0
        held.append(line)
        size += len(line)
    if held:
        yield b"".join(held)


def recorded(storage: Storage, layout: OutputLayout, division: str, node: int | None = None) -> Iterator[pl.DataFrame]:
    """All outcomes, oldest first (their names sort so), many at a time: of a unit the last one counts.

    Columns line, part, its_digest, its_etag, result_size, rows, failed_rows, and code and message of an error.
    `node`: only what that node wrote down, and the divided CSVs that have been put together. Raises RecordDamaged.
    """
    others: list[Location] = []
    objects = (found for _, found in _objects(storage, layout, division, node, others.append))
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        while batch := list(islice(objects, READ_AT_ONCE)):
            yield _table_of(batch, list(pool.map(partial(_read, storage), batch)))
    if others:
        _log.warning("%d records that are not of this division do not count: %s and so on", len(others), others[0])


def _prefix(turn: int, of: int | str, division: str) -> str:
    """What the names of one writer's objects begin with."""
    return "-".join((f"{turn:04d}", str(of), *filter(None, (division,)), uuid.uuid4().hex[:8]))


def _objects(
    storage: Storage,
    layout: OutputLayout,
    division: str,
    node: int | None,
    other: Callable[[Location], object] = lambda _: None,
) -> Iterator[tuple[int, ObjectInfo]]:
    """The objects of this division with their turns, in order: of this node and what was put together, or of all.

    `other` is told of what is of another division, or none of ours.
    """
    for info in storage.list(layout.ledger):
        found = _NAME.fullmatch(info.location.name)
        if found is None or (found["division"] or "") != division:
            other(info.location)
        elif node is None or found["of"] in (str(node), COMPOSED):
            yield int(found["turn"]), info


def _last_turn(storage: Storage, layout: OutputLayout, division: str, node: int | None) -> int:
    """Turns put records in order: a node that is tried again, in one attempt too, comes after what was there before.

    0 where there are no records.
    """
    return max((turn for turn, _ in _objects(storage, layout, division, node)), default=0)


def _read(storage: Storage, info: ObjectInfo) -> bytes:
    if info.size > LARGEST:
        raise damaged(info.location, f"it has more than {LARGEST // 2**20} MiB", _THEN)
    return storage.read(info.location)


def _table_of(objects: Sequence[ObjectInfo], texts: Sequence[bytes]) -> pl.DataFrame:
    """Many objects at once; one by one where one of them is damaged, to name it."""
    import polars as pl

    found, why = None, "a record is not as it was written"
    try:
        found = _table(b"".join(texts))
    except (pl.exceptions.PolarsError, ValueError) as error:
        why = " ".join(str(error).split())
    if found is not None and _is_whole(texts, found):
        return found
    if len(objects) > 1:
        return pl.concat([_table_of([one], [text]) for one, text in zip(objects, texts, strict=True)])
    raise damaged(objects[0].location, why, _THEN)


def _is_whole(texts: Sequence[bytes], found: pl.DataFrame) -> bool:
    """Whether each line became a record that says of what it is, and what came of it."""
    import polars as pl

    if any(not text.endswith(b"\n") for text in texts) or found.height != sum(text.count(b"\n") for text in texts):
        return False
    made = pl.col("result_size") >= 0
    good = (
        pl.col("line").is_not_null()
        & (pl.col("part") >= WHOLE)
        & (pl.col("its_digest").bin.size() == DIGEST_BYTES)
        & pl.when(pl.col("code").is_null()).then(made).otherwise(pl.col("message").is_not_null())
    )
    return bool(found.select(good.fill_null(value=False).all()).item())


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
