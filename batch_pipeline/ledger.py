"""What is finished, kept in storage: small append-only objects of JSON lines, folded when somebody needs to know."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from types import TracebackType

import orjson

from batch_pipeline.errors import BatchPipelineError
from batch_pipeline.layout import OutputLayout
from batch_pipeline.node.job import Progress, UnitError, UnitResult
from batch_pipeline.storage import Storage

FLUSH_SECONDS = 2.0
FLUSH_RECORDS = 1000
WHOLE = -1
"""The part number of a divided CSV that has been put together."""

Outcome = UnitResult | UnitError


class LedgerWriter:
    """One node's pen. Records reach storage every 2 seconds or 1,000 records, and all of them when it closes.

    A failed write is kept and raised by the next `record` or at the close: a node may not go on unrecorded.
    """

    def __init__(self, storage: Storage, layout: OutputLayout, *, attempt: int, node: int) -> None:
        self._storage = storage
        self._layout = layout
        self._node = node
        self._prefix = f"{attempt:04d}-{node}-{uuid.uuid4().hex[:8]}"
        self._sequence = 0
        self._pending: list[bytes] = []
        self._progress: Progress | None = None
        self._failure: BatchPipelineError | None = None
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
            except BatchPipelineError as failure:
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


def decode(line: bytes) -> Outcome:
    record = orjson.loads(line)
    error = record.pop("error", None)
    return UnitError(**record, **error) if error else UnitResult(**record)


@dataclass
class Ledger:
    """The outcomes of all attempts, folded: a result, once there, stays; of errors the last attempt's counts."""

    results: dict[tuple[int, int], UnitResult] = field(default_factory=dict)
    errors: dict[tuple[int, int], UnitError] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        unit = (outcome.line, outcome.part)
        if isinstance(outcome, UnitResult):
            self.results[unit] = outcome
            self.errors.pop(unit, None)
        else:
            self.errors[unit] = outcome
            self.results.pop(unit, None)


def append(storage: Storage, layout: OutputLayout, outcomes: Iterable[Outcome], *, attempt: int, name: str) -> None:
    """Adds records from outside a node (a divided CSV put together)."""
    lines = [encode(outcome) for outcome in outcomes]
    if lines:
        object_name = f"{attempt:04d}-{name}-{uuid.uuid4().hex[:8]}-000000.jsonl"
        storage.write(layout.ledger.child(object_name), b"".join(lines))


def fold(storage: Storage, layout: OutputLayout) -> Ledger:
    """Reads the whole ledger, oldest attempt first (their names sort so)."""
    ledger = Ledger()
    for info in storage.list(layout.ledger):
        for line in storage.read(info.location).splitlines():
            ledger.add(decode(line))
    return ledger
