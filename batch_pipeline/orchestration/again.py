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

TAG_MODEL_DIGEST = "batch_pipeline/model_digest"
"""On a backfill and its runs: the model that they were started for."""

MODEL_DIGEST = "model_digest"
"""The metadata of results that says which model made them."""


@dataclass(frozen=True)
class Again:
    """The services to run again, by name: now, or once they have ended."""

    ready: tuple[str, ...]
    busy: tuple[str, ...]


def again_with(instance: dg.DagsterInstance, declaration: Declaration, model: str, digest: str) -> Again:
    """Services that have run, name the model without a version, have no results of it, and were not yet asked for."""
    names = [declaration.name] if declaration.is_fixed else instance.get_dynamic_partitions(declaration.name)
    records = latest_records(instance, declaration.name, names)
    asked = _asked(instance, declaration, digest)
    meant = [
        name
        for name, record in sorted(records.items())
        if name not in asked and record.dagster_run.tags.get(TAG_MODEL, model) == model
    ]
    busy = tuple(name for name in meant if _is_busy(records[name]))
    ended = [name for name in meant if name not in busy]
    made = _made_with(instance, declaration, ended, digest)
    return Again(tuple(name for name in ended if name not in made), busy)


def start_backfill(
    instance: dg.DagsterInstance,
    declaration: Declaration,
    names: Sequence[str],
    *,
    title: str,
    digest: str,
    sensor: str,
    location: CodeLocationOrigin,
    repository: str,
) -> str:
    """One backfill of the declaration's job, in which each service has its own recorded parameters. Returns its id.

    The id follows from what is asked for, so that asking for the same again, as a tick that was killed does, changes
    nothing.
    """
    text = "\n".join((declaration.name, digest, *names))
    backfill_id = hashlib.sha256(text.encode()).hexdigest()[:12]
    if instance.get_backfill(backfill_id) is None:
        partition_set = partition_set_snap_name_for_job_name(declaration.job)
        instance.add_backfill(
            PartitionBackfill(
                backfill_id=backfill_id,
                status=BulkActionStatus.REQUESTED,
                from_failure=False,
                tags={TAG_DECLARATION: declaration.name, TAG_MODEL_DIGEST: digest, SENSOR_NAME_TAG: sensor},
                backfill_timestamp=datetime.now(UTC).timestamp(),
                title=title,
                partition_set_origin=RemotePartitionSetOrigin(
                    repository_origin=RemoteRepositoryOrigin(location, repository), partition_set_name=partition_set
                ),
                partition_names=list(names),
            )
        )
    return backfill_id


def _asked(instance: dg.DagsterInstance, declaration: Declaration, digest: str) -> set[str]:
    """The services of all backfills for this model, whatever became of their runs."""
    tags = {TAG_DECLARATION: declaration.name, TAG_MODEL_DIGEST: digest}
    found = instance.get_backfills(filters=BulkActionsFilter(tags=tags))
    return {name for backfill in found for name in backfill.partition_names or ()}


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
