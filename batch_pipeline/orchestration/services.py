"""The services of a deployment, read from the instance: list, show, stop, run again, describe, delete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
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
from batch_pipeline.orchestration.launching import Launched, launch
from batch_pipeline.orchestration.names import PARTITION, SERVICE, TAG_DESCRIPTION, TAG_INPUTS, TAG_INPUTS_DONE
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
    names = [name for name in instance.get_dynamic_partitions(SERVICE) if search.casefold() in name.casefold()]
    records = latest_records(instance, names)
    deployment = DeploymentResource().get()
    services = [_service(name, records.get(name), deployment) for name in names]
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(services, key=lambda service: service.created or oldest, reverse=True)


def show_service(instance: dg.DagsterInstance, name: str) -> Service:
    """The service, with the error where it failed. Raises `ServiceNotFound`."""
    record = _record(instance, name)
    service = _service(name, record, DeploymentResource().get())
    if record is None or service.state != "failed":
        return service
    return replace(service, error=run_error(instance, record.dagster_run.run_id) or _GONE)


def recorded_parameters(instance: dg.DagsterInstance, name: str) -> ServiceParameters:
    """What the service last ran with, its description as edited since. Raises `Refused`."""
    record = _record(instance, name)
    if record is None:
        raise ServiceNotFound(f"the service {name} was never launched, so there are no parameters to run it with")
    return _parameters(name, record.dagster_run)


def run_service(
    instance: dg.DagsterInstance,
    name: str,
    *,
    wait: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Launched:
    """Run it again with its recorded parameters, as a new run. Raises `Refused`."""
    parameters = recorded_parameters(instance, name)
    return launch(parameters, wait=wait, overwrite=overwrite, instance=instance, on_progress=on_progress)


def stop_service(instance: dg.DagsterInstance, name: str) -> None:
    """Ask the run to stop: at once where it is queued, else its process does. Raises `Refused` where nothing runs."""
    end_dead_runs(instance)
    record = _record(instance, name)
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
    record = _record(instance, name)
    refuse_if_busy(instance, name)
    if record is None:
        raise ServiceNotFound(f"the service {name} was never launched, so there is nothing to describe")
    config = from_run_config(record.dagster_run.run_config) or {}
    settings = DeploymentResource().get().settings
    named_parameters({**config, "description": description}, name, settings)
    instance.add_run_tags(record.dagster_run.run_id, {TAG_DESCRIPTION: description})


def delete_service(instance: dg.DagsterInstance, name: str, *, results: bool = False) -> int:
    """Delete its runs and its partition; with `results` its own objects first. Returns how many objects there were.

    Raises `ServiceBusy`, and `ServiceLocked` where a process elsewhere works on the results.
    """
    end_dead_runs(instance)
    record = _record(instance, name)
    refuse_if_busy(instance, name)
    deleted = _delete_results(name, record.dagster_run) if results and record is not None else 0
    for each in list(run_records(instance, [name])):
        instance.delete_run(each.dagster_run.run_id)
    instance.delete_dynamic_partition(SERVICE, name)
    return deleted


_GONE = RunError("its process ended without a word; what it finished is kept: run the service again", "ProcessGone")


def _delete_results(name: str, run: DagsterRun) -> int:
    from batch_pipeline import service

    return service.delete_results(_parameters(name, run).output, name, DeploymentResource().get())


def _record(instance: dg.DagsterInstance, name: str) -> RunRecord | None:
    if not instance.has_dynamic_partition(SERVICE, name):
        raise ServiceNotFound(f"there is no service {name}; list them with: batch-pipeline services list")
    return latest_records(instance, [name]).get(name)


def _parameters(name: str, run: DagsterRun) -> ServiceParameters:
    config = from_run_config(run.run_config) or {}
    if TAG_DESCRIPTION in run.tags:
        config["description"] = run.tags[TAG_DESCRIPTION]
    return named_parameters(config, name, DeploymentResource().get().settings)


def _service(name: str, record: RunRecord | None, deployment: Deployment) -> Service:
    if record is None:
        return Service(name, state_of(None))
    run, state = record.dagster_run, state_of(record.dagster_run)
    config = from_run_config(run.run_config) or {}
    inputs, done = _counts(run, state, config, deployment)
    started = _time(record.start_time)
    ended = _time(record.end_time) if state not in ACTIVE else datetime.now(UTC)
    return Service(
        name=name,
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
    run: DagsterRun, state: State, config: dict[str, Any], deployment: Deployment
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
        parameters = named_parameters(config, run.tags[PARTITION], deployment.settings)
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
