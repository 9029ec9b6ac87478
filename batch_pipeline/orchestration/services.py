"""The services of a deployment, read from the instance: list, show, stop, run again, describe, delete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES, DagsterRun, RunRecord
from dagster._core.storage.tags import GRPC_INFO_TAG

from batch_pipeline.errors import Refused, ServiceNotFound
from batch_pipeline.locations import parse_folder
from batch_pipeline.orchestration.admission import refuse_if_busy
from batch_pipeline.orchestration.config import named_parameters
from batch_pipeline.orchestration.failures import RunError, run_error
from batch_pipeline.orchestration.holders import end_dead_runs, free_slots, holder_of, is_ended
from batch_pipeline.orchestration.identity import ServiceId, find_service, listed_services
from batch_pipeline.orchestration.launching import Launched, launch, relaunch
from batch_pipeline.orchestration.names import SERVICE, TAG_DESCRIPTION, TAG_EDITED
from batch_pipeline.orchestration.resources import DeploymentResource
from batch_pipeline.orchestration.runs import edited_description, last_not_refused, latest_records, run_records
from batch_pipeline.orchestration.shown import Service, listed, looked_up, whole_config
from batch_pipeline.orchestration.states import ACTIVE, state_of
from batch_pipeline.parameters import ServiceParameters

if TYPE_CHECKING:
    from batch_pipeline.node.job import Progress

__all__ = [
    "Service",
    "delete_service",
    "describe_service",
    "list_services",
    "recorded_parameters",
    "run_service",
    "show_service",
    "stop_service",
]


def list_services(instance: dg.DagsterInstance, *, search: str = "") -> list[Service]:
    """All services whose name contains `search` (in any case), newest first."""
    found = [each for each in listed_services(instance) if search.casefold() in each.name.casefold()]
    deployment = DeploymentResource().anew()
    services = [listed(each, record, deployment) for each, record in _latest(instance, found)]
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(services, key=lambda service: service.created or oldest, reverse=True)


def show_service(instance: dg.DagsterInstance, name: str) -> Service:
    """The service, with the error where it failed. Raises `ServiceNotFound`."""
    found, record = _found(instance, name)
    service = looked_up(found, record, DeploymentResource().anew(), instance)
    if record is None or service.state != "failed":
        return service
    return replace(service, error=run_error(instance, record.dagster_run.run_id) or _GONE)


def recorded_parameters(instance: dg.DagsterInstance, name: str) -> ServiceParameters:
    """What the service last ran with, its description as edited since. Raises `Refused`."""
    found, record = _found(instance, name)
    if record is None:
        raise ServiceNotFound(f"the service {name} has no run, so there are no parameters to run it with")
    return _parameters(instance, found, record.dagster_run)


def run_service(
    instance: dg.DagsterInstance,
    name: str,
    *,
    wait: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Launched:
    """Run it again with its recorded parameters, as a new run. Raises `Refused`."""
    found, record = _found(instance, name)
    if record is None:
        raise ServiceNotFound(f"the service {name} has no run, so there are no parameters to run it with")
    parameters = _parameters(instance, found, record.dagster_run)
    if found.declaration == SERVICE:
        return launch(parameters, wait=wait, overwrite=overwrite, instance=instance, on_progress=on_progress)
    return relaunch(
        instance, found, record.dagster_run, parameters, wait=wait, overwrite=overwrite, on_progress=on_progress
    )


def stop_service(instance: dg.DagsterInstance, name: str) -> None:
    """Ask its runs to stop: those in the queue at once, others by their process. Raises `Refused` where none runs."""
    end_dead_runs(instance)
    found, record = _found(instance, name)
    state = state_of(record.dagster_run if record is not None else None)
    if state not in ACTIVE:
        raise Refused(f"the service {name} is {state}: there is nothing to stop")
    for each in list(run_records(instance, found.declaration, [found.partition], NOT_FINISHED_STATUSES)):
        _stop(instance, each.dagster_run)


def _stop(instance: dg.DagsterInstance, run: DagsterRun) -> None:
    try:
        asked = instance.run_coordinator.cancel_run(run.run_id)
    except DagsterUserCodeUnreachableError as error:
        # The run is marked all the same, and the daemon's monitoring ends it once it has waited long enough.
        raise Refused(
            f"run {run.run_id} is to be stopped, but its code server can't be reached; is the daemon running?"
        ) from error
    if not asked and holder_of(run) is None and GRPC_INFO_TAG not in run.tags:
        # Nobody executes it.
        instance.report_run_canceled(run)
        free_slots(instance, run.run_id)


def describe_service(instance: dg.DagsterInstance, name: str, description: str) -> None:
    """Change the description. Raises `ServiceBusy`, `InvalidParameters`."""
    end_dead_runs(instance)
    found, record = _found(instance, name)
    refuse_if_busy(instance, found.declaration, found.partition)
    if record is None:
        raise ServiceNotFound(f"the service {name} has no run, so there is nothing to describe")
    config = _last_config(instance, found, record.dagster_run)
    settings = DeploymentResource().anew().settings
    named_parameters({**config, "description": description}, found.partition, settings, declaration=found.declaration)
    instance.add_run_tags(record.dagster_run.run_id, {TAG_DESCRIPTION: description, TAG_EDITED: "true"})


def delete_service(instance: dg.DagsterInstance, name: str, *, results: bool = False) -> int:
    """Delete its runs and its partition; with `results` its own objects first. Returns how many objects there were.

    Raises `ServiceBusy`, and with `results`, before anything is deleted, `ServiceLocked` and `OutputRefused` where a
    process elsewhere works on them. One that is only not known to be gone is waited for.
    """
    end_dead_runs(instance)
    found, record = _found(instance, name)
    refuse_if_busy(instance, found.declaration, found.partition)
    deleted = _delete_results(instance, found, record.dagster_run) if results and record is not None else 0
    for each in list(run_records(instance, found.declaration, [found.partition])):
        instance.delete_run(each.dagster_run.run_id)
    if instance.has_dynamic_partition(found.declaration, found.partition):
        instance.delete_dynamic_partition(found.declaration, found.partition)
    return deleted


_GONE = RunError("its process ended without a word; what it finished is kept: run the service again", "ProcessGone")


def _delete_results(instance: dg.DagsterInstance, found: ServiceId, run: DagsterRun) -> int:
    from batch_pipeline import service

    deployment, path = DeploymentResource().anew(), _last_config(instance, found, run).get("output_path")
    if path is None:
        # It was refused before it had parameters.
        return 0
    output = parse_folder(path, allow_local=deployment.settings.allow_local_files)
    return service.delete_results(output, found.name, deployment, is_gone=partial(is_ended, instance))


def _found(instance: dg.DagsterInstance, name: str) -> tuple[ServiceId, RunRecord | None]:
    """The service and its run. Raises `ServiceNotFound`."""
    found = find_service(instance, name)
    return found, latest_records(instance, found.declaration, [found.partition]).get(found.partition)


def _latest(
    instance: dg.DagsterInstance, services: Sequence[ServiceId]
) -> Iterator[tuple[ServiceId, RunRecord | None]]:
    """Each service with its run, a few queries a declaration."""
    for declaration, group in groupby(sorted(services, key=attrgetter("declaration")), key=attrgetter("declaration")):
        members = list(group)
        records = latest_records(instance, declaration, [each.partition for each in members])
        yield from ((each, records.get(each.partition)) for each in members)


def _parameters(instance: dg.DagsterInstance, found: ServiceId, run: DagsterRun) -> ServiceParameters:
    config = _last_config(instance, found, run)
    settings = DeploymentResource().anew().settings
    return named_parameters(config, found.partition, settings, declaration=found.declaration)


def _last_config(instance: dg.DagsterInstance, found: ServiceId, newest: DagsterRun) -> dict[str, Any]:
    """What the service last ran with, its description as edited since; what was refused only where nothing else is."""
    run = last_not_refused(instance, found.declaration, found.partition) or newest
    config = whole_config(instance, found, run)
    edited = edited_description(instance, found.declaration, found.partition)
    return config if edited is None else {**config, "description": edited}
