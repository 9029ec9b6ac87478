"""Services that are to run again with another version of their model: which they are, and the backfill that does it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import CodeLocationOrigin, RemotePartitionSetOrigin, RemoteRepositoryOrigin
from dagster._core.remote_representation.external_data import partition_set_snap_name_for_job_name
from dagster._core.storage.dagster_run import RunRecord
from dagster._core.storage.tags import SENSOR_NAME_TAG

from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.names import INFERENCE_RESULTS, TAG_DECLARATION, TAG_MODEL
from batch_pipeline.orchestration.runs import latest_records
from batch_pipeline.orchestration.states import ACTIVE, state_of

TAG_NEW_MODEL = "batch_pipeline/new_model"
"""On a backfill and its runs: the model that they were started for. The same content may come back as a new version."""

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
class NewModel:
    """The version of a model that services are to run again with."""

    name: str
    ref: str
    digest: str

    @property
    def tag(self) -> str:
        return f"{self.ref} {self.digest}"


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
    asked = {name for backfill in _backfills(instance, declaration, model) for name in backfill.partition_names or ()}
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
    found = list(reversed(_backfills(instance, declaration, model, tuple(_ENDS))))
    existing = set(_names(instance, declaration)) if found else set()
    ended = (_ended(instance, declaration, backfill, existing, model.digest) for backfill in found)
    return [each for each in ended if each.left]


def start_backfill(
    instance: dg.DagsterInstance,
    declaration: Declaration,
    names: Sequence[str],
    *,
    model: NewModel,
    sensor: str,
    location: CodeLocationOrigin,
    repository: str,
) -> str:
    """One backfill of the declaration's job, in which each service has its own recorded parameters. Returns its id.

    The id follows from what is asked for, so that asking for the same again, as a tick that was killed does, changes
    nothing.
    """
    text = "\n".join((declaration.name, model.ref, model.digest, *names))
    backfill_id = hashlib.sha256(text.encode()).hexdigest()[:12]
    if instance.get_backfill(backfill_id) is None:
        partition_set = partition_set_snap_name_for_job_name(declaration.job)
        instance.add_backfill(
            PartitionBackfill(
                backfill_id=backfill_id,
                status=BulkActionStatus.REQUESTED,
                from_failure=False,
                tags={TAG_DECLARATION: declaration.name, TAG_NEW_MODEL: model.tag, SENSOR_NAME_TAG: sensor},
                backfill_timestamp=datetime.now(UTC).timestamp(),
                title=model.ref,
                partition_set_origin=RemotePartitionSetOrigin(
                    repository_origin=RemoteRepositoryOrigin(location, repository), partition_set_name=partition_set
                ),
                partition_names=list(names),
            )
        )
    return backfill_id


def _backfills(
    instance: dg.DagsterInstance, declaration: Declaration, model: NewModel, statuses: Sequence[BulkActionStatus] = ()
) -> Sequence[PartitionBackfill]:
    """Those for this model, newest first; all, or those of some statuses."""
    tags = {TAG_DECLARATION: declaration.name, TAG_NEW_MODEL: model.tag}
    return instance.get_backfills(filters=BulkActionsFilter(tags=tags, statuses=list(statuses) or None))


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
