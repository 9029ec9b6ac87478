"""The services of a deployment, read from the instance: list, show, stop, run again, describe, delete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.storage.dagster_run import DagsterRun, RunRecord
from dagster._core.storage.tags import GRPC_INFO_TAG

from batch_pipeline.errors import Refused, ServiceNotFound, StorageFailed
from batch_pipeline.orchestration.admission import refuse_if_busy
from batch_pipeline.orchestration.config import from_run_config, named_parameters
from batch_pipeline.orchestration.failures import RunError, run_error
from batch_pipeline.orchestration.holders import end_dead_runs, free_slots, holder_of
from batch_pipeline.orchestration.identity import ServiceId, all_services, find_service
from batch_pipeline.orchestration.launching import Launched, launch, relaunch
from batch_pipeline.orchestration.metadata import reported_parameters
from batch_pipeline.orchestration.names import SERVICE, TAG_DESCRIPTION, TAG_INPUTS, TAG_INPUTS_DONE
from batch_pipeline.orchestration.resources import DeploymentResource
from batch_pipeline.orchestration.runs import latest_records, run_records
from batch_pipeline.orchestration.states import ACTIVE, State, state_of
from batch_pipeline.parameters import MASK, ServiceParameters

if TYPE_CHECKING:
    from batch_pipeline.deployment import Deployment
    from batch_pipeline.node.job import Progress


@dataclass(frozen=True)
class Service:
    """One service as its newest run has it."""

    name: str
    state: State
    run_id: str | None = None
    parameters: dict[str, Any] | None = None
    """As recorded, literal values of `environment` masked; None for a partition that nobody launched."""
    description: str = ""
    inputs: int | None = None
    inputs_done: int | None = None
    """Inputs with an outcome; None before there is a plan."""
    created: datetime | None = None
    started: datetime | None = None
    seconds: float | None = None
    """From its start to its end, or to now."""
    error: RunError | None = None
    """Why it failed; only `show_service` looks it up."""

    @property
    def model(self) -> str:
        return str((self.parameters or {}).get("model", ""))

    @property
    def nodes(self) -> int | None:
        return int(self.parameters.get("node_count", 1)) if self.parameters is not None else None

    @property
    def output_path(self) -> str:
        return str((self.parameters or {}).get("output_path", ""))


def list_services(instance: dg.DagsterInstance, *, search: str = "") -> list[Service]:
    """All services whose name contains `search` (in any case), newest first."""
    found = [each for each in all_services(instance) if search.casefold() in each.name.casefold()]
    deployment = DeploymentResource().get()
    services = [_service(each, record, deployment, instance) for each, record in _newest(instance, found)]
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(services, key=lambda service: service.created or oldest, reverse=True)


def show_service(instance: dg.DagsterInstance, name: str) -> Service:
    """The service, with the error where it failed. Raises `ServiceNotFound`."""
    found, record = _found(instance, name)
    service = _service(found, record, DeploymentResource().get(), instance)
    if record is None or service.state != "failed":
        return service
    return replace(service, error=run_error(instance, record.dagster_run.run_id) or _GONE)


def recorded_parameters(instance: dg.DagsterInstance, name: str) -> ServiceParameters:
    """What the service last ran with, its description as edited since. Raises `Refused`."""
    found, record = _found(instance, name)
    if record is None:
        raise ServiceNotFound(f"the service {name} was never launched, so there are no parameters to run it with")
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
        raise ServiceNotFound(f"the service {name} was never launched, so there are no parameters to run it with")
    parameters = _parameters(instance, found, record.dagster_run)
    if found.declaration == SERVICE:
        return launch(parameters, wait=wait, overwrite=overwrite, instance=instance, on_progress=on_progress)
    return relaunch(
        instance, found, record.dagster_run, parameters, wait=wait, overwrite=overwrite, on_progress=on_progress
    )


def stop_service(instance: dg.DagsterInstance, name: str) -> None:
    """Ask the run to stop: at once where it is queued, else its process does. Raises `Refused` where nothing runs."""
    end_dead_runs(instance)
    _, record = _found(instance, name)
    run = record.dagster_run if record is not None else None
    if run is None or state_of(run) not in ACTIVE:
        raise Refused(f"the service {name} is {state_of(run)}: there is nothing to stop")
    if GRPC_INFO_TAG in run.tags or run.status == dg.DagsterRunStatus.QUEUED:
        _cancel(instance, run.run_id)
    elif holder_of(run) is not None:
        # It runs in a process of the command line, which watches the status of its run.
        instance.report_run_canceling(run)
    else:
        instance.report_run_canceled(run)
        free_slots(instance, run.run_id)


def _cancel(instance: dg.DagsterInstance, run_id: str) -> None:
    try:
        instance.run_coordinator.cancel_run(run_id)
    except DagsterUserCodeUnreachableError as error:
        # The run is marked all the same, and the daemon's monitoring ends it once it has waited long enough.
        raise Refused(
            f"run {run_id} is to be stopped, but its code server can't be reached; is the daemon running?"
        ) from error


def describe_service(instance: dg.DagsterInstance, name: str, description: str) -> None:
    """Change the description. Raises `ServiceBusy`, `InvalidParameters`."""
    end_dead_runs(instance)
    found, record = _found(instance, name)
    refuse_if_busy(instance, found.declaration, found.partition)
    if record is None:
        raise ServiceNotFound(f"the service {name} was never launched, so there is nothing to describe")
    config = _config(instance, found, record.dagster_run)
    settings = DeploymentResource().get().settings
    named_parameters({**config, "description": description}, found.partition, settings, declaration=found.declaration)
    instance.add_run_tags(record.dagster_run.run_id, {TAG_DESCRIPTION: description})


def delete_service(instance: dg.DagsterInstance, name: str, *, results: bool = False) -> int:
    """Delete its runs and its partition; with `results` its own objects first. Returns how many objects there were.

    Raises `ServiceBusy`, and `ServiceLocked` where a process elsewhere works on the results.
    """
    end_dead_runs(instance)
    found, record = _found(instance, name)
    refuse_if_busy(instance, found.declaration, found.partition)
    deleted = _delete_results(instance, found, record.dagster_run) if results and record is not None else 0
    for each in list(run_records(instance, found.declaration, [found.partition])):
        instance.delete_run(each.dagster_run.run_id)
    if not found.is_fixed:
        instance.delete_dynamic_partition(found.declaration, found.partition)
    return deleted


_GONE = RunError("its process ended without a word; what it finished is kept: run the service again", "ProcessGone")


def _delete_results(instance: dg.DagsterInstance, found: ServiceId, run: DagsterRun) -> int:
    from batch_pipeline import service

    output = _parameters(instance, found, run).output
    return service.delete_results(output, found.name, DeploymentResource().get())


def _found(instance: dg.DagsterInstance, name: str) -> tuple[ServiceId, RunRecord | None]:
    """The service and its newest run. Raises `ServiceNotFound`."""
    found = find_service(instance, name)
    return found, latest_records(instance, found.declaration, [found.partition]).get(found.partition)


def _newest(
    instance: dg.DagsterInstance, services: Sequence[ServiceId]
) -> Iterator[tuple[ServiceId, RunRecord | None]]:
    """Each service with its newest run, one query a declaration."""
    for declaration, group in groupby(services, key=attrgetter("declaration")):
        members = list(group)
        records = latest_records(instance, declaration, [each.partition for each in members])
        yield from ((each, records.get(each.partition)) for each in members)


def _parameters(instance: dg.DagsterInstance, found: ServiceId, run: DagsterRun) -> ServiceParameters:
    config = _config(instance, found, run)
    if TAG_DESCRIPTION in run.tags:
        config["description"] = run.tags[TAG_DESCRIPTION]
    settings = DeploymentResource().get().settings
    return named_parameters(config, found.partition, settings, declaration=found.declaration)


def _config(instance: dg.DagsterInstance, found: ServiceId, run: DagsterRun) -> dict[str, Any]:
    """The parameters of a run: as it was launched, or as its first step says where the template gave them."""
    given = from_run_config(run.run_config, found.declaration) or {}
    return given if "model" in given and "output_path" in given else reported_parameters(instance, run.run_id) or given


def _service(
    found: ServiceId, record: RunRecord | None, deployment: Deployment, instance: dg.DagsterInstance
) -> Service:
    if record is None:
        return Service(found.name, state_of(None))
    run, state = record.dagster_run, state_of(record.dagster_run)
    config = _config(instance, found, run)
    inputs, done = _counts(found, run, state, config, deployment)
    started = _time(record.start_time)
    ended = _time(record.end_time) if state not in ACTIVE else datetime.now(UTC)
    return Service(
        name=found.name,
        state=state,
        run_id=run.run_id,
        parameters=_masked(config),
        description=run.tags.get(TAG_DESCRIPTION, config.get("description", "")),
        inputs=inputs,
        inputs_done=done,
        created=record.create_timestamp.astimezone(UTC),
        started=started,
        seconds=(ended - started).total_seconds() if started and ended else None,
    )


def _counts(
    found: ServiceId, run: DagsterRun, state: State, config: dict[str, Any], deployment: Deployment
) -> tuple[int | None, int | None]:
    """Inputs, and inputs done: from the run's tags once it has published, else from storage.

    A re-execution that has not ended still has the tags of its parent.
    """
    if TAG_INPUTS in run.tags and state not in ACTIVE:
        return int(run.tags[TAG_INPUTS]), int(run.tags[TAG_INPUTS_DONE])
    if state == "deploying":
        return None, None
    from batch_pipeline import service

    try:
        parameters = named_parameters(config, found.partition, deployment.settings, declaration=found.declaration)
        progress = service.progress(parameters, deployment)
    except (Refused, StorageFailed):
        # A list of services is no place for the store's or another deployment's troubles.
        return None, None
    return (progress.units, progress.done) if progress.units else (None, None)


def _masked(config: dict[str, Any]) -> dict[str, Any]:
    environment = {
        name: MASK if isinstance(value, str) else value for name, value in config.get("environment", {}).items()
    }
    return {**config, "environment": environment}


def _time(timestamp: float | None) -> datetime | None:
    return datetime.fromtimestamp(timestamp, UTC) if timestamp is not None else None
