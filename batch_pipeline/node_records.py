"""What each node spent and did, kept in storage: one small record a node and try, rewritten while it works."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from batch_pipeline.layout import OutputLayout
from batch_pipeline.locations import Location
from batch_pipeline.node.job import Progress
from batch_pipeline.records import read_record
from batch_pipeline.storage import Storage

if TYPE_CHECKING:
    from batch_pipeline.node_specs import NodeSpec

SAVE_SECONDS = 10.0
"""What a node that is killed has spent since its last record is lost."""
READ_AT_ONCE = 32
SAMPLE_BYTES = 16 * 1024
"""A request with its answer that is longer than this is not kept."""


@dataclass(frozen=True)
class NodeRecord:
    """One try of one node. Inputs, rows and bytes are of this try alone."""

    attempt: int
    node: int
    spec: str
    price_per_hour: float | None
    """As the table of node specs had it when the node worked."""
    seconds: float
    """From the node's start, the model's download included, to this record."""
    inputs: int
    failed: int
    rows: int
    failed_rows: int
    bytes_read: int
    sample: tuple[dict[str, Any], ...] = ()
    """A few {"request"?, "answer"} pairs."""


class NodeRecordWriter:
    """One node's record of this try, its clock started. For the node's own thread. Storage's errors pass through."""

    def __init__(self, storage: Storage, layout: OutputLayout, *, attempt: int, node: int, spec: NodeSpec) -> None:
        self._storage = storage
        self._target = layout.node_records.child(f"{attempt:04d}-{node}-{uuid.uuid4().hex[:8]}.json")
        self._attempt, self._node, self._spec = attempt, node, spec
        self._began = self._saved = time.monotonic()

    def report(self, progress: Progress) -> None:
        """Saves how far the node is, if that was not done just now. `progress` counts this try alone."""
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self.save(progress)

    def save(self, progress: Progress, sample: Sequence[dict[str, Any]] = ()) -> None:
        self._saved = time.monotonic()
        record = NodeRecord(
            attempt=self._attempt,
            node=self._node,
            spec=self._spec.id,
            price_per_hour=self._spec.price_per_hour,
            seconds=round(self._saved - self._began, 3),
            inputs=progress.done,
            failed=progress.failed,
            rows=progress.rows,
            failed_rows=progress.failed_rows,
            bytes_read=progress.bytes_read,
            sample=tuple(pair for pair in sample if len(json.dumps(pair)) <= SAMPLE_BYTES),
        )
        # The standard library's JSON has room for the NaN and the large integers of a request.
        self._storage.write(self._target, json.dumps(asdict(record)).encode())


def load_node_records(storage: Storage, layout: OutputLayout) -> list[NodeRecord]:
    """The records of all tries of all attempts since the service was started over, by attempt. Raises RecordDamaged."""

    def read(location: Location) -> NodeRecord:
        return read_record(NodeRecord, storage, location, then="what that try of a node cost is not counted")

    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        return list(pool.map(read, [info.location for info in storage.list(layout.node_records)]))
