"""Services that are to run again with another version of their model: which they are, and which are left over."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.storage.dagster_run import RunRecord

from batch_pipeline.orchestration.backfills import NewModel, backfills_for
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.names import INFERENCE_RESULTS, TAG_MODEL
from batch_pipeline.orchestration.runs import latest_records
from batch_pipeline.orchestration.states import ACTIVE, state_of

MODEL_DIGEST = "model_digest"
"""The metadata of results that says which model made them."""

_ENDS = {
    BulkActionStatus.CANCELING: "was cancelled",
    BulkActionStatus.CANCELED: "was cancelled",
    BulkActionStatus.FAILING: "failed",
    BulkActionStatus.FAILED: "failed",
    BulkActionStatus.COMPLETED_FAILED: "has ended",
}


@dataclass(frozen=True)
class Again:
    """The services to run again, by name: now, or once they have ended."""

    ready: tuple[str, ...]
    busy: tuple[str, ...]


@dataclass(frozen=True)
class Ended:
    """A backfill that has ended, and the services among its own that have no results of its model."""

    backfill_id: str
    how: str
    services: int
    left: tuple[str, ...]


def again_with(instance: dg.DagsterInstance, declaration: Declaration, model: NewModel) -> Again:
    """Services that have run, name the model without a version, have no results of it, and were not yet asked for."""
    records = latest_records(instance, declaration.name, _names(instance, declaration))
    asked = {
        name for backfill in backfills_for(instance, declaration, model) for name in backfill.partition_names or ()
    }
    meant = [
        name
        for name, record in sorted(records.items())
        if name not in asked and record.dagster_run.tags.get(TAG_MODEL, model.name) == model.name
    ]
    busy = tuple(name for name in meant if _is_busy(records[name]))
    ended = [name for name in meant if name not in busy]
    made = _made_with(instance, declaration, ended, model.digest)
    return Again(tuple(name for name in ended if name not in made), busy)


def ended_without(instance: dg.DagsterInstance, declaration: Declaration, model: NewModel) -> list[Ended]:
    """The backfills for this model that ended with services left, oldest first.

    Nobody makes up for them but a person: cancelling is a decision, Dagster has tried several times before it gives up,
    and a service that failed by itself would fail again.
    """
    found = list(reversed(backfills_for(instance, declaration, model, tuple(_ENDS))))
    existing = set(_names(instance, declaration)) if found else set()
    ended = (_ended(instance, declaration, backfill, existing, model.digest) for backfill in found)
    return [each for each in ended if each.left]


def _ended(
    instance: dg.DagsterInstance, declaration: Declaration, backfill: PartitionBackfill, existing: set[str], digest: str
) -> Ended:
    names = backfill.partition_names or ()
    left = existing & set(names)
    left -= _made_with(instance, declaration, left, digest)
    return Ended(backfill.backfill_id, _ENDS[backfill.status], len(names), tuple(sorted(left)))


def _names(instance: dg.DagsterInstance, declaration: Declaration) -> Sequence[str]:
    return [declaration.name] if declaration.is_fixed else instance.get_dynamic_partitions(declaration.name)


def _is_busy(record: RunRecord) -> bool:
    return state_of(record.dagster_run) in ACTIVE


def _made_with(instance: dg.DagsterInstance, declaration: Declaration, names: Collection[str], digest: str) -> set[str]:
    """Those services whose newest results are of this model."""
    key = declaration.key(INFERENCE_RESULTS)
    event = dg.DagsterEventType.ASSET_MATERIALIZATION
    newest = instance.event_log_storage.get_latest_storage_id_by_partition(key, event, set(names)) if names else {}
    if not newest:
        return set()
    records = dg.AssetRecordsFilter(asset_key=key, storage_ids=list(newest.values()))
    found = instance.fetch_materializations(records, limit=len(newest)).records
    made = (record.asset_materialization for record in found)
    return {
        str(one.partition)
        for one in made
        if one is not None and (value := one.metadata.get(MODEL_DIGEST)) is not None and value.value == digest
    }
