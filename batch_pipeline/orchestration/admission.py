"""What keeps a service out for the sake of others: one at work already, too many of them; and what one run may do.

Whether a run that has started is let in is in turns.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.storage.tags import RETRY_NUMBER_TAG

from batch_pipeline.errors import LimitReached, ServiceBusy
from batch_pipeline.orchestration.identity import ServiceId, all_services
from batch_pipeline.orchestration.names import SERVICE, TAG_OVERWRITE, full_name
from batch_pipeline.orchestration.runs import latest_run
from batch_pipeline.orchestration.states import ACTIVE, state_of
from batch_pipeline.parameters import ServiceParameters
from batch_pipeline.settings import Settings


def as_admitted(parameters: ServiceParameters, *, overwrite: bool) -> ServiceParameters:
    """The parameters as one run takes them: it may have been told to start over, which the service does not record."""
    return parameters.model_copy(update={"if_changed": "overwrite"}) if overwrite else parameters


def may_start_over(run: DagsterRun) -> bool:
    """Whether the run was told to start over, or is Dagster's own retry of one that was."""
    told = run.tags.get(TAG_OVERWRITE)
    return told is not None and told in (run.run_id, run.root_run_id if RETRY_NUMBER_TAG in run.tags else None)


def refuse_if_busy(instance: dg.DagsterInstance, declaration: str, name: str) -> None:
    """Raises `ServiceBusy` for a service that is deploying or running."""
    run = latest_run(instance, declaration, name)
    state = state_of(run)
    if run is not None and state in ACTIVE:
        raise ServiceBusy(
            f"the service {full_name(declaration, name)} is {state} (run {run.run_id}): stop it, or wait for its end"
        )


def refuse_above_limit(existing: int, settings: Settings) -> None:
    """Raises `LimitReached` where no service may be added to so many."""
    if existing >= settings.max_services:
        raise LimitReached(
            f"{existing} services exist, the limit of this deployment (BATCH_PIPELINE_MAX_SERVICES): "
            "delete one with: batch-pipeline services delete NAME"
        )


def existing_services(instance: dg.DagsterInstance) -> dict[str, set[str]]:
    """The names of the services of each declaration."""
    existing: dict[str, set[str]] = {SERVICE: set()}
    for service in all_services(instance):
        existing.setdefault(service.declaration, set()).add(service.partition)
    return existing


def count_services(existing: Mapping[str, Collection[str]], refused: Collection[ServiceId]) -> int:
    """How many there are; one that was only ever refused takes no room."""
    return sum(map(len, existing.values())) - len(refused)
