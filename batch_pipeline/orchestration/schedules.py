"""The schedules of a declaration: a service at each time, or the one fixed service again."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.storage.tags import SCHEDULE_NAME_TAG, SCHEDULED_EXECUTION_TIME_TAG

from batch_pipeline.errors import InvalidParameters, Problem
from batch_pipeline.orchestration.admission import refuse_above_limit
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.declaration_check import check_schedule
from batch_pipeline.orchestration.names import full_name
from batch_pipeline.orchestration.requests import Existing, as_tick_failures, run_request
from batch_pipeline.orchestration.resources import DeploymentResource
from batch_pipeline.orchestration.runs import latest_run
from batch_pipeline.orchestration.states import ACTIVE, state_of
from batch_pipeline.orchestration.watches import named
from batch_pipeline.settings import Settings
from batch_pipeline.triggers.settings import ScheduleTrigger

if TYPE_CHECKING:
    from batch_pipeline.triggers.template import Occasion


def schedules_of(declaration: Declaration, job: Any) -> list[dg.ScheduleDefinition]:
    """They are off until somebody turns them on. Raises `InvalidParameters` for a time that never comes."""
    found = [(kind, trigger) for kind, trigger in named(declaration.triggers) if isinstance(trigger, ScheduleTrigger)]
    return [_schedule(declaration, job, kind, trigger) for kind, trigger in found]


def _schedule(declaration: Declaration, job: Any, kind: str, trigger: ScheduleTrigger) -> dg.ScheduleDefinition:
    name = f"{declaration.name}_{kind}"
    _check(declaration, kind, trigger)
    makes = f"Runs the service `{declaration.name}` again"
    if not declaration.is_fixed:
        makes = f"Makes a service of `{declaration.name}`, named after the time,"

    @dg.schedule(
        name=name,
        cron_schedule=trigger.cron,
        execution_timezone=trigger.timezone,
        job=job,
        description=f"{makes} at `{trigger.cron}` ({trigger.timezone}).",
        tags={"declaration": declaration.name, "trigger": trigger.kind},
        metadata={"declaration": declaration.name},
        owners=list(declaration.owners) or None,
    )
    def fire(
        context: dg.ScheduleEvaluationContext, batch_pipeline_deployment: DeploymentResource
    ) -> dg.RunRequest | dg.SkipReason:
        with as_tick_failures():
            return _fire(context, declaration, name, batch_pipeline_deployment.get().settings)

    return fire


def _check(declaration: Declaration, kind: str, trigger: ScheduleTrigger) -> None:
    try:
        check_schedule(trigger, kind)
    except InvalidParameters as error:
        where = f"declaration {declaration.name}"
        raise InvalidParameters(tuple(Problem(where, str(problem)) for problem in error.problems)) from None


def _fire(
    context: dg.ScheduleEvaluationContext, declaration: Declaration, schedule: str, settings: Settings
) -> dg.RunRequest | dg.SkipReason:
    """The run of one scheduled time. Asked again for the same time it is the same, so that Dagster makes one."""
    occasion = _occasion(declaration, context.scheduled_execution_time.astimezone(UTC))
    run = latest_run(context.instance, declaration.name, occasion.name)
    if run is not None and not _is_of(run, schedule, occasion):
        reason = _kept_out(declaration, occasion, run)
        if reason:
            return dg.SkipReason(reason)
    request = run_request(declaration, occasion, settings, run_key=occasion.value("time"))
    if not declaration.is_fixed:
        _add_partition(context.instance, declaration, occasion.name, settings)
    return request


def _occasion(declaration: Declaration, time: datetime) -> "Occasion":
    from batch_pipeline.triggers.template import Occasion

    name = declaration.name if declaration.is_fixed else f"{declaration.name}-{time:%Y%m%dT%H%M%SZ}"
    return Occasion(name, time=time)


def _is_of(run: DagsterRun, schedule: str, occasion: "Occasion") -> bool:
    """Whether the run is the one of this very time, made by an evaluation that was cut off."""
    of = run.tags.get(SCHEDULE_NAME_TAG), run.tags.get(SCHEDULED_EXECUTION_TIME_TAG)
    return occasion.time is not None and of == (schedule, occasion.time.isoformat())


def _kept_out(declaration: Declaration, occasion: "Occasion", run: DagsterRun) -> str | None:
    """Why the service of this time is not run because of another run of it; None where it is."""
    service, state = full_name(declaration.name, occasion.name), state_of(run)
    if state in ACTIVE:
        return f"the service {service} is still {state} (run {run.run_id})"
    return None if declaration.is_fixed else f"the service {service} was made already (run {run.run_id})"


def _add_partition(instance: dg.DagsterInstance, declaration: Declaration, name: str, settings: Settings) -> None:
    """A schedule can't ask Dagster for it, as a sensor does. Raises `LimitReached`."""
    existing = Existing(instance, declaration.name)
    if name not in existing.names:
        refuse_above_limit(existing.count, settings)
        instance.add_dynamic_partitions(declaration.name, [name])
