"""What can be known to be wrong with a declaration before anything runs: pure functions, without network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from zoneinfo import available_timezones

from dagster._utils.schedules import is_valid_cron_schedule

from batch_pipeline.errors import BatchPipelineError, InvalidLocation, InvalidParameters, Problem, QueueFailed
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.watches import DataTrigger, Places, named, places_of
from batch_pipeline.settings import Settings
from batch_pipeline.triggers.settings import (
    LEAST,
    MOST_SECONDS,
    ModelTrigger,
    NotificationTrigger,
    ScheduleTrigger,
    Trigger,
)


def check_declaration(declaration: Declaration, settings: Settings) -> None:
    """Raises `InvalidParameters` with everything that is wrong with the template, the triggers, or the two together.

    The problem of a trigger stands at `triggers.<number>`, counted from 0.
    """
    problems = [*_of_template(declaration, settings), *_of_triggers(declaration, settings)]
    if problems:
        raise InvalidParameters(tuple(dict.fromkeys(problems)))


def check_schedule(trigger: ScheduleTrigger, where: str) -> None:
    """Raises `InvalidParameters` for a cron expression or a time zone that there is none of."""
    problems = []
    if not is_valid_cron_schedule(trigger.cron):
        what = f'{trigger.cron!r} is no cron schedule; five fields are expected, such as "0 6 * * *"'
        problems.append(Problem(f"{where}.cron", what))
    if trigger.timezone not in available_timezones():
        what = f"{trigger.timezone!r} is no time zone; a name such as Europe/Berlin or UTC is expected"
        problems.append(Problem(f"{where}.timezone", what))
    if problems:
        raise InvalidParameters(tuple(problems))


def _of_template(declaration: Declaration, settings: Settings) -> Iterator[Problem]:
    if declaration.template is None:
        if declaration.triggers:
            yield Problem("triggers", "need a template: what they fire for has no parameters otherwise")
        return
    from batch_pipeline.triggers.template import ServiceTemplate

    template = ServiceTemplate(declaration.template)
    kinds = {trigger.brings_input for trigger in declaration.triggers if not isinstance(trigger, ModelTrigger)}
    for input_given in sorted(kinds or {False}):
        try:
            template.check(settings, many=not declaration.is_fixed, input_given=input_given)
        except InvalidParameters as error:
            yield from error.problems


def _of_triggers(declaration: Declaration, settings: Settings) -> Iterator[Problem]:
    from batch_pipeline.orchestration.among_triggers import among

    found: list[tuple[int, DataTrigger, Places]] = []
    for number, (kind, trigger) in enumerate(named(declaration.triggers)):
        where = f"triggers.{number}"
        yield from _of_numbers(trigger, where)
        try:
            if isinstance(trigger, ScheduleTrigger):
                check_schedule(trigger, where)
            elif isinstance(trigger, ModelTrigger):
                yield from _of_model(declaration, where, again=kind != ModelTrigger.kind)
            elif declaration.template is not None:
                places = places_of(
                    trigger, declaration.name, declaration.template, allow_local=settings.allow_local_files
                )
                found.append((number, trigger, places))
                yield from _of_places(declaration, trigger, places, where, settings)
        except InvalidParameters as error:
            yield from error.problems
        except BatchPipelineError as error:
            yield Problem(where, error.message)
    yield from among(found)
    yield from _same_times(declaration)


def _of_numbers(trigger: Trigger, where: str) -> Iterator[Problem]:
    for name, least in LEAST.items():
        value = getattr(trigger, name, None)
        if value is not None and not least <= value < math.inf:
            yield Problem(f"{where}.{name}", f"is {value!r}; a number of at least {least} is expected")
        elif name == "settle_seconds" and value is not None and value > MOST_SECONDS:
            yield Problem(f"{where}.{name}", f"is {value!r}; {MOST_SECONDS:,} are the most")


def _same_times(declaration: Declaration) -> Iterator[Problem]:
    """A time makes one service, so that the second schedule of the same times would only ever be skipped."""
    known: dict[tuple[str, str], int] = {}
    for number, trigger in enumerate(declaration.triggers):
        if isinstance(trigger, ScheduleTrigger):
            first = known.setdefault((" ".join(trigger.cron.split()), trigger.timezone), number)
            if first != number:
                yield Problem(f"triggers.{number}", f"is the schedule of triggers.{first} once more: one is enough")


def _of_model(declaration: Declaration, where: str, *, again: bool) -> Iterator[Problem]:
    template = declaration.template or {}
    model = template.get("model")
    if again:
        yield Problem(where, "there is one model, so one trigger of type model is enough")
    if isinstance(model, str) and (":" in model or "{" in model):
        what = f"is {model!r}, which no new version changes; a trigger of type model needs the name alone"
        yield Problem("model", what)
    if template.get("if_changed") != "overwrite":
        yield Problem("if_changed", "must be overwrite: a trigger of type model runs services again with another model")


def _of_places(
    declaration: Declaration, trigger: object, places: Places, where: str, settings: Settings
) -> Iterator[Problem]:
    from batch_pipeline.triggers.overlaps import check_apart
    from batch_pipeline.triggers.queue import check_url
    from batch_pipeline.triggers.template import ServiceTemplate

    if isinstance(trigger, NotificationTrigger):
        try:
            check_url(trigger.queue_url)
        except QueueFailed as error:
            yield Problem(f"{where}.queue_url", error.message)
    if places.watched is None and not places.outputs.key:
        yield Problem(f"{where}.path", "must name a folder, since the output folders are all over their bucket")
    output = ServiceTemplate(declaration.template or {}).output_path
    try:
        check_apart(
            places.watched,
            output,
            state=places.state,
            manifests=places.manifests,
            allow_local=settings.allow_local_files,
        )
    except InvalidLocation as error:
        yield Problem("output_path", error.message)
    except InvalidParameters as error:
        yield from (Problem(problem.where or where, problem.what) for problem in error.problems)
