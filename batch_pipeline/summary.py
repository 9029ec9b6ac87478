"""How a service ended or how far it is, as its records say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from batch_pipeline.errors import ObjectNotFound
from batch_pipeline.layout import OutputLayout
from batch_pipeline.node.job import Progress
from batch_pipeline.parameters import ServiceParameters
from batch_pipeline.plan import load_plan
from batch_pipeline.records import read_record
from batch_pipeline.review.report import Review
from batch_pipeline.storage import Storage


@dataclass(frozen=True)
class Summary:
    """How a service ended. `first_errors` and `sample` are for people; storage keeps the rest."""

    state: Literal["finished", "failed"]
    message: str
    """Why it failed, in one line; empty where it did not."""
    inputs: int
    succeeded: int
    failed: int
    rows: int
    failed_rows: int
    size: int
    """Bytes of all results."""
    nodes: int
    seconds: float
    """From the attempt's plan to the last manifest."""
    result_manifests: tuple[str, ...]
    error_manifests: tuple[str, ...]
    already_finished: bool = False
    sample: tuple[dict[str, Any], ...] = ()
    """{"request", "answer"} of a few CSV rows; {"source", "answer"} of a few files."""
    first_errors: tuple[dict[str, Any], ...] = ()
    """{"source", "line", "code", "message"} of a few failed inputs."""
    review: Review | None = None
    """What a reviewer asks; None in the records of a service that finished before there were reviews."""

    @property
    def failed_share(self) -> float:
        """The larger of failed inputs ÷ inputs and failed rows ÷ rows."""
        return max(
            self.failed / self.inputs if self.inputs else 0.0, self.failed_rows / self.rows if self.rows else 0.0
        )


def load_summary(storage: Storage, layout: OutputLayout) -> Summary | None:
    """None where there is none. Raises RecordDamaged."""
    try:
        return read_record(Summary, storage, layout.finished, then="its manifests are written again")
    except ObjectNotFound:
        return None


def is_finished(storage: Storage, layout: OutputLayout, parameters: ServiceParameters) -> bool:
    """Whether nothing is left to do: it finished, no larger share failed than is allowed now, and all manifests stand.

    Where it ended as failed, the failed inputs are tried again, also under a threshold that would let them pass.
    """
    summary = load_summary(storage, layout)
    if summary is None or summary.state == "failed" or summary.failed_share > parameters.error_threshold:
        return False
    try:
        for node in range(parameters.node_count):
            storage.head(layout.result_manifest(node))
    except ObjectNotFound:
        return False
    return True


def progress_of(storage: Storage, layout: OutputLayout, service: str) -> Progress:
    """All nodes' progress added up; all zero before the service has a plan here."""
    try:
        plan = load_plan(storage, layout)
    except ObjectNotFound:
        return Progress()
    if plan.service != service:
        return Progress()
    total = Progress(units=plan.inputs)
    for shard in plan.shards:
        try:
            node = read_record(Progress, storage, layout.progress(shard.node), then="its node goes on")
        except ObjectNotFound:
            continue
        total = Progress(
            total.done + node.done,
            total.failed + node.failed,
            total.units,
            total.rows + node.rows,
            total.failed_rows + node.failed_rows,
            total.bytes_read + node.bytes_read,
        )
    return total
