"""Deploy a service: name it, refuse what can be refused now, make its run, and execute it here or queue it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.storage.dagster_run import DagsterRun

from batch_pipeline.errors import InvalidSettings
from batch_pipeline.orchestration.admission import (
    as_admitted,
    count_services,
    existing_services,
    refuse_above_limit,
    refuse_if_busy,
)
from batch_pipeline.orchestration.code_location import JobOrigin, create_run
from batch_pipeline.orchestration.config import to_run_config
from batch_pipeline.orchestration.failures import RunError, run_error
from batch_pipeline.orchestration.here import execute_here
from batch_pipeline.orchestration.holders import end_dead_runs
from batch_pipeline.orchestration.identity import ServiceId
from batch_pipeline.orchestration.instance import open_instance
from batch_pipeline.orchestration.names import SERVICE, TAG_OVERWRITE
from batch_pipeline.orchestration.open_databases import databases_open
from batch_pipeline.orchestration.resources import DeploymentResource
from batch_pipeline.orchestration.runs import latest_run, recorded_config
from batch_pipeline.orchestration.states import State, state_of
from batch_pipeline.orchestration.turns import refused_services
from batch_pipeline.ownership import ProcessIdentity
from batch_pipeline.parameters import ServiceParameters, generate_name

if TYPE_CHECKING:
    from batch_pipeline.deployment import Deployment
    from batch_pipeline.node.job import Progress


@dataclass(frozen=True)
class Launched:
    """A service that was launched, and how it ended where the caller waited for it."""

    service: str
    run_id: str
    state: State
    output_path: str
    error: RunError | None = None
    """Why it failed; None for a service that is queued, finished or stopped."""

    @property
    def message(self) -> str:
        """Why it failed, and how to run it again by name where that may help; on one line."""
        if self.error is None:
            return ""
        again = "" if self.refused else f". To run it again: batch-pipeline services run {self.service}"
        return self.error.message + again

    @property
    def refused(self) -> bool:
        """Whether it was refused before it did anything (exit status 2, not 1)."""
        return self.error is not None and self.error.refused


def launch(
    parameters: ServiceParameters,
    *,
    wait: bool,
    overwrite: bool = False,
    instance: dg.DagsterInstance | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Launched:
    """Deploy the service; with `wait` here, with no daemon, else on the queue of the instance.

    With `overwrite` this run starts over where the service was run before with something else; the service's own
    parameters say nothing of it.

    `on_progress` is called from another thread now and then while this process waits. A service that started and
    failed is no exception: see `Launched.error`. Raises `Refused`, and then there is neither partition nor run.
    """
    if instance is None:
        with open_instance(quiet=wait) as ours, databases_open(ours):
            return launch(parameters, wait=wait, overwrite=overwrite, instance=ours, on_progress=on_progress)
    _check_queue(instance, wait=wait)
    deployment = DeploymentResource().anew()
    end_dead_runs(instance)
    parameters, is_new = _admitted(parameters, instance, deployment, overwrite=overwrite)
    # Who executes it is known from the first moment, so that a run is never left behind by a process that is killed.
    origin = JobOrigin.own()
    run = create_run(instance, parameters, ProcessIdentity.current() if wait else None, origin=origin)
    instance.add_dynamic_partitions(SERVICE, [parameters.name or ""])
    launched = _start(instance, origin, run, parameters, wait=wait, overwrite=overwrite, on_progress=on_progress)
    if launched.refused and is_new:
        # It lost a race for its name or its output folder: there is no such service.
        _forget(instance, launched)
    return launched


def _forget(instance: dg.DagsterInstance, launched: Launched) -> None:
    instance.delete_run(launched.run_id)
    if latest_run(instance, SERVICE, launched.service) is None:
        instance.delete_dynamic_partition(SERVICE, launched.service)


def relaunch(
    instance: dg.DagsterInstance,
    service: ServiceId,
    run: DagsterRun,
    parameters: ServiceParameters,
    *,
    wait: bool,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Launched:
    """Deploy a declared service again as `run` did, from the code location that declares it. Raises `Refused`.

    What the service was never given is filled in anew, by the template as it is now.
    """
    _check_queue(instance, wait=wait)
    end_dead_runs(instance)
    refuse_if_busy(instance, service.declaration, service.partition)
    origin = JobOrigin.of(run, service.declaration)
    again = create_run(
        instance,
        parameters,
        ProcessIdentity.current() if wait else None,
        declaration=service.declaration,
        origin=origin,
        run_config=recorded_run_config(instance, service),
    )
    return _start(instance, origin, again, parameters, wait=wait, overwrite=overwrite, on_progress=on_progress)


def recorded_run_config(instance: dg.DagsterInstance, service: ServiceId) -> dict[str, Any]:
    """What the service was last given, its description as edited since; empty where all is left to the template."""
    config = recorded_config(instance, service.declaration, service.partition) or {}
    return to_run_config(config, service.declaration) if config else {}


def _check_queue(instance: dg.DagsterInstance, *, wait: bool) -> None:
    if not wait and not isinstance(instance.run_coordinator, QueuedRunCoordinator):
        raise InvalidSettings("the instance has no run queue: remove run_coordinator from its dagster.yaml, or wait")


def _start(
    instance: dg.DagsterInstance,
    origin: JobOrigin,
    run: DagsterRun,
    parameters: ServiceParameters,
    *,
    wait: bool,
    overwrite: bool,
    on_progress: Callable[[Progress], None] | None,
) -> Launched:
    if overwrite:
        instance.add_run_tags(run.run_id, {TAG_OVERWRITE: run.run_id})
    if not wait:
        return _launched(parameters, enqueue(instance, run), None)
    ended = execute_here(instance, origin.job, run, parameters, on_progress)
    return _launched(parameters, ended, run_error(instance, ended.run_id))


def enqueue(instance: dg.DagsterInstance, run: DagsterRun) -> DagsterRun:
    """Put the run on the queue. The coordinator asks nothing of a workspace, so no code server is started."""
    return instance.submit_run(run.run_id, workspace=cast("Any", None))


def _admitted(
    parameters: ServiceParameters, instance: dg.DagsterInstance, deployment: Deployment, *, overwrite: bool
) -> tuple[ServiceParameters, bool]:
    """The parameters, with a name, and whether it is a new service's.

    Raises `Refused` for everything that can be known before there is a run.
    """
    from batch_pipeline import service

    existing = existing_services(instance)
    refused = refused_services(instance, existing)
    if parameters.name is None:
        parameters = parameters.model_copy(update={"name": generate_name(existing[SERVICE])})
    name = parameters.name or ""
    if name in existing[SERVICE]:
        refuse_if_busy(instance, SERVICE, name)
    if name not in existing[SERVICE] or ServiceId(SERVICE, name) in refused:
        refuse_above_limit(count_services(existing, refused), deployment.settings)
    service.check(as_admitted(parameters, overwrite=overwrite), deployment)
    return parameters, name not in existing[SERVICE]


def _launched(parameters: ServiceParameters, run: DagsterRun, error: RunError | None) -> Launched:
    state = state_of(run)
    return Launched(
        parameters.full_name, run.run_id, state, parameters.output_path, error if state == "failed" else None
    )
