"""The sensors of a declaration: one for each place that is watched, and one for its model."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from batch_pipeline.locations import shown
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.model_sensor import model_sensor
from batch_pipeline.orchestration.requests import (
    Existing,
    Position,
    Requests,
    TickFailed,
    as_tick_failures,
    requests_for,
)
from batch_pipeline.orchestration.resources import DeploymentResource
from batch_pipeline.orchestration.watches import DataTrigger, named, watch_of
from batch_pipeline.triggers.settings import ManifestTrigger, ModelTrigger, NewFilesTrigger, ScheduleTrigger

if TYPE_CHECKING:
    from batch_pipeline.deployment import Deployment
    from batch_pipeline.triggers.looking import Look

MOST = 50
"""Runs that one tick asks for: Dagster makes them one after the other."""
_LARGEST = 1600
"""Arrivals of a look that is to find others behind those that are refused."""
_NAMED = 3


def sensors_of(declaration: Declaration, job: Any) -> list[dg.SensorDefinition]:
    """They are off until somebody turns them on."""
    sensors = []
    for kind, trigger in named(declaration.triggers):
        if isinstance(trigger, ModelTrigger):
            sensors.append(model_sensor(declaration, job, kind, trigger))
        elif not isinstance(trigger, ScheduleTrigger):
            sensors.append(_sensor(declaration, job, kind, trigger))
    return sensors


def _sensor(declaration: Declaration, job: Any, kind: str, trigger: DataTrigger) -> dg.SensorDefinition:
    def look(context: dg.SensorEvaluationContext, batch_pipeline_deployment: DeploymentResource) -> dg.SensorResult:
        with as_tick_failures():
            return _tick(context, declaration, trigger, batch_pipeline_deployment.in_tick())

    return dg.SensorDefinition(
        name=f"{declaration.name}_{kind}",
        evaluation_fn=look,
        job=job,
        minimum_interval_seconds=trigger.interval_seconds,
        description=_description(declaration, trigger),
        tags={"declaration": declaration.name, "trigger": trigger.kind},
        metadata={"declaration": declaration.name, "watched": _watched(trigger)},
        owners=list(declaration.owners) or None,
    )


def _tick(
    context: dg.SensorEvaluationContext, declaration: Declaration, trigger: DataTrigger, ours: "Deployment"
) -> dg.SensorResult:
    existing = Existing(context.instance, declaration.name)
    look, requests = _look(Position.read(context.cursor), existing, declaration, trigger, ours)
    message = _message(look, requests, ours.settings.max_services)
    context.log.info(message)
    if requests.refused and not requests.runs:
        raise TickFailed(message)
    partitions = declaration.partitions
    assert isinstance(partitions, dg.DynamicPartitionsDefinition), "a declaration whose input arrives is not fixed"
    return dg.SensorResult(
        run_requests=requests.runs,
        skip_reason=None if requests.runs else dg.SkipReason(message),
        dynamic_partitions_requests=[partitions.build_add_request(requests.names)] if requests.runs else [],
        cursor=str(Position(look.cursor, requests.asked)),
    )


def _look(
    position: Position,
    existing: Existing,
    declaration: Declaration,
    trigger: DataTrigger,
    ours: "Deployment",
) -> "tuple[Look, Requests]":
    """Look for as many as there may be runs; once more, behind those that are refused, where they fill it."""

    def found(most: int) -> "tuple[Look, Requests]":
        watch = watch_of(trigger, declaration.name, declaration.template or {}, ours, most)
        look = watch.look(position.watch, lambda keys: existing.requested(position, keys))
        return look, requests_for(look.arrivals, declaration, existing, ours.settings, MOST)

    look, requests = found(MOST)
    full = len(look.arrivals) >= MOST and len(requests.runs) < MOST
    held_up = full and requests.refused and not requests.waiting
    return found(_LARGEST) if held_up else (look, requests)


def _message(look: "Look", requests: Requests, limit: int) -> str:
    from batch_pipeline.triggers.looking import counted, sentence

    more = len(requests.refused) - _NAMED
    return sentence(
        look.message,
        requests.waiting
        and f"the limit of {counted(limit, 'service')} is reached: {counted(requests.waiting, 'manifest')} waiting",
        requests.refused and f"refused, to be tried again: {'; '.join(requests.refused[:_NAMED])}",
        more > 0 and f"and {more:,} more",
        requests.later and f"{counted(requests.later, 'manifest')} for the next ticks",
    )


def _description(declaration: Declaration, trigger: DataTrigger) -> str:
    makes = f"a service of `{declaration.name}`, named after it"
    watched = _watched(trigger)
    if isinstance(trigger, ManifestTrigger):
        return f"Watches `{watched}` for input manifests. Each `*.manifest`, new or rewritten, makes {makes}."
    full = f"{trigger.max_files:,} files" + (f" or {trigger.max_bytes:,} bytes" if trigger.max_bytes else "")
    what = "Watches" if isinstance(trigger, NewFilesTrigger) else "Reads the bucket notifications of"
    return (
        f"{what} `{watched}` for new files that match `{trigger.pattern}`. Once none has come for "
        f"{trigger.settle_seconds:g} s, or there are {full}, they are gathered into a manifest, which makes {makes}."
    )


def _watched(trigger: DataTrigger) -> str:
    """As everybody may see it who sees the UI, be the address of the queue refused later."""
    return trigger.path if isinstance(trigger, ManifestTrigger | NewFilesTrigger) else shown(trigger.queue_url)
