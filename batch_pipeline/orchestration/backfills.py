"""The backfills that run services again with a new version of their model: they are started here, and found again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import CodeLocationOrigin, RemotePartitionSetOrigin, RemoteRepositoryOrigin
from dagster._core.remote_representation.external_data import partition_set_snap_name_for_job_name
from dagster._core.storage.tags import SENSOR_NAME_TAG

from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.names import TAG_DECLARATION, TAG_NEW_MODEL


@dataclass(frozen=True)
class NewModel:
    """The version of a model that services are to run again with."""

    name: str
    ref: str
    digest: str

    @property
    def tag(self) -> str:
        return f"{self.ref} {self.digest}"


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


def backfills_for(
    instance: dg.DagsterInstance, declaration: Declaration, model: NewModel, statuses: Sequence[BulkActionStatus] = ()
) -> Sequence[PartitionBackfill]:
    """Those for this model, newest first; all, or those of some statuses."""
    tags = {TAG_DECLARATION: declaration.name, TAG_NEW_MODEL: model.tag}
    return instance.get_backfills(filters=BulkActionsFilter(tags=tags, statuses=list(statuses) or None))
