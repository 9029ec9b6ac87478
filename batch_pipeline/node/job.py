"""What one compute node is asked to do and what it reports. Plain data, no behaviour."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from batch_pipeline.locations import Location, Source
from batch_pipeline.models.binding import Binding
from batch_pipeline.models.mapping import ColumnMapping
from batch_pipeline.node.time_limit import BATCH_SECONDS
from batch_pipeline.parameters import CsvOptions


@dataclass(frozen=True)
class Unit:
    """One piece of work: a whole input, or one byte range of a divided CSV.

    A part holds the rows whose first byte lies in [start, end). `result` is where its answers go: the input's
    result, or a part under `_batch/` where the CSV is divided.
    """

    line: int
    digest: str
    source: Source
    result: Location
    part: int = 0
    parts: int = 1
    start: int = 0
    end: int | None = None
    size: int | None = None
    etag: str | None = None
    """What the object must still be when it is read; None where nobody looked."""


@dataclass(frozen=True)
class UnitResult:
    """A unit whose result is durable. `rows` and `failed_rows` are None for a file API."""

    line: int
    digest: str
    part: int
    etag: str
    size: int
    """Bytes of the result object."""
    rows: int | None = None
    failed_rows: int | None = None


@dataclass(frozen=True)
class UnitError:
    """A unit with no result. The message names neither source nor signature."""

    line: int
    digest: str
    part: int
    code: str
    message: str


class Recorder(Protocol):
    """Where a node writes down what is finished (the ledger). Called from any thread."""

    def record(self, outcome: UnitResult | UnitError) -> None: ...


@dataclass(frozen=True)
class Progress:
    """How far a node is. `done` counts failed ones too, and `rows` failed rows; `bytes_read` is of this attempt."""

    done: int = 0
    failed: int = 0
    units: int = 0
    """Inputs in all: a divided CSV counts once, by its first part."""
    rows: int = 0
    failed_rows: int = 0
    bytes_read: int = 0


@dataclass(frozen=True)
class NodeJob:
    """All a node needs to know. `units` is read once, in order, and may be long: it is never held whole."""

    units: Iterable[Unit | None]
    """None: the next one is not there yet, and the node may look after itself meanwhile."""
    unit_count: int
    """Inputs among `units`: a divided CSV counts once, by its first part."""
    model_folder: Path
    """The model package on the local disk, digest verified."""
    model_file: str
    binding: Binding
    mapping: ColumnMapping | None
    """None for a file API."""
    csv: CsvOptions
    join_input: bool
    threads: int
    """CPU cores this node may use."""
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    batch_seconds: float = BATCH_SECONDS
    """How long one call of the model may take, and the decoding of one image."""


@dataclass(frozen=True)
class NodeReport:
    """What a node did in this attempt; the ledger, not this, is what is believed."""

    node: int
    progress: Progress
    seconds: float
    sample: tuple[dict[str, object], ...] = field(default=())
    """A few {"request"?, "answer"} pairs, for people to look at."""
