"""The sensor on a declaration's model: a new normal version runs its services again, in one backfill."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from batch_pipeline.orchestration.again import Again, Ended, again_with, ended_without
from batch_pipeline.orchestration.backfills import NewModel, start_backfill
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.names import full_name
from batch_pipeline.orchestration.requests import TickFailed, as_tick_failures
from batch_pipeline.orchestration.resources import DeploymentResource
from batch_pipeline.triggers.settings import ModelTrigger

if TYPE_CHECKING:
    from batch_pipeline.deployment import Deployment
    from batch_pipeline.models.registry import ModelVersion

_NAMED = 3


@dataclass(frozen=True)
class Seen:
    """The sensor's cursor: the newest normal version, and whether nothing is left to run again with it."""

    version: str
    digest: str
    done: bool = True

    @classmethod
    def read(cls, cursor: str | None) -> "Seen | None":
        """None where there is no cursor, or it is none of ours."""
        try:
            found = json.loads(cursor or "")
            return cls(str(found["version"]), str(found["digest"]), bool(found["done"]))
        except (ValueError, TypeError, KeyError, RecursionError):
            return None

    def model(self, name: str) -> NewModel:
        return NewModel(name, f"{name}:{self.version}", self.digest)

    def __str__(self) -> str:
        return json.dumps({"version": self.version, "digest": self.digest, "done": self.done})


def model_sensor(declaration: Declaration, job: Any, kind: str, trigger: ModelTrigger) -> dg.SensorDefinition:
    """It is off until somebody turns it on."""
    name = f"{declaration.name}_{kind}"
    model = _model(declaration)

    def look(context: dg.SensorEvaluationContext, batch_pipeline_deployment: DeploymentResource) -> dg.SensorResult:
        with as_tick_failures():
            return _tick(context, declaration, name, batch_pipeline_deployment.in_tick())

    return dg.SensorDefinition(
        name=name,
        evaluation_fn=look,
        job=job,
        minimum_interval_seconds=trigger.interval_seconds,
        description=f"Watches the registry for the newest normal version of `{model}`. A new one runs the services of "
        f"`{declaration.name}` again, in one backfill, each with its own recorded parameters; but for those that were "
        "given a version, and those that have results of the new one.",
        tags={"declaration": declaration.name, "trigger": trigger.kind},
        metadata={"declaration": declaration.name, "watched": model},
        owners=list(declaration.owners) or None,
    )


def _tick(
    context: dg.SensorEvaluationContext, declaration: Declaration, sensor: str, ours: "Deployment"
) -> dg.SensorResult:
    from batch_pipeline.triggers.looking import sentence

    newest = ours.registry.show(_model(declaration))
    model = NewModel(newest.name, newest.ref, newest.digest or "")
    seen = Seen.read(context.cursor)
    said = _nothing_to_do(newest, seen)
    known = seen.model(newest.name) if seen is not None and said is not None else model
    left = [_left(each, declaration, known) for each in ended_without(context.instance, declaration, known)]
    if said is not None:
        # The first look only remembers: what is there by then is what services were deployed with.
        position = Seen(newest.version, model.digest) if seen is None and newest.status == "normal" else seen
        return _said(context, sentence(said, *left), position)
    found = again_with(context.instance, declaration, model)
    backfill = _start(context, declaration, sensor, model, found) if found.ready else None
    message = sentence(_message(model, found, backfill), *left)
    return _said(context, message, Seen(newest.version, model.digest, done=not found.busy))


def _nothing_to_do(newest: "ModelVersion", seen: Seen | None) -> str | None:
    from batch_pipeline.models.versions import version_key

    if newest.status != "normal":
        return f"no version of {newest.name} is normal; {newest.ref} is not: {'; '.join(newest.reasons)}"
    if seen is None:
        return f"{newest.ref} is the newest normal version; services run again when there is a newer one"
    if version_key(newest.version) < version_key(seen.version):
        return f"{newest.name}:{seen.version} is not normal any more, or gone; nothing runs again with {newest.ref}"
    if newest.digest == seen.digest and seen.done:
        return f"{newest.ref} is still the newest normal version"
    return None


def _start(
    context: dg.SensorEvaluationContext, declaration: Declaration, sensor: str, model: NewModel, found: Again
) -> str:
    if context.code_location_origin is None or context.repository_name is None:
        raise TickFailed("a backfill can only be started by the sensor of a code location that Dagster has loaded")
    return start_backfill(
        context.instance,
        declaration,
        found.ready,
        model=model,
        sensor=sensor,
        location=context.code_location_origin,
        repository=context.repository_name,
    )


def _message(model: NewModel, found: Again, backfill: str | None) -> str:
    from batch_pipeline.triggers.looking import counted, sentence

    return sentence(
        f"{model.ref} is the newest normal version",
        backfill and f"backfill {backfill} runs {counted(len(found.ready), 'service')} again",
        found.busy and f"at work, to run again afterwards: {counted(len(found.busy), 'service')}",
        not backfill and not found.busy and "no service is to run again",
    )


def _left(ended: Ended, declaration: Declaration, model: NewModel) -> str:
    from batch_pipeline.triggers.looking import counted

    named = ", ".join(full_name(declaration.name, name) for name in ended.left[:_NAMED])
    more = f" and {len(ended.left) - _NAMED:,} more" if len(ended.left) > _NAMED else ""
    return (
        f"backfill {ended.backfill_id} {ended.how}, and {len(ended.left):,} of its "
        f"{counted(ended.services, 'service')} have no results of {model.ref} ({named}{more}); "
        "run one again with: batch-pipeline services run NAME"
    )


def _said(context: dg.SensorEvaluationContext, message: str, position: Seen | None) -> dg.SensorResult:
    line = " ".join(message.split())
    context.log.info(line)
    return dg.SensorResult(skip_reason=dg.SkipReason(line), cursor=str(position) if position else context.cursor)


def _model(declaration: Declaration) -> str:
    return str((declaration.template or {}).get("model", ""))
