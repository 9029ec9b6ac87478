"""What can be known to be wrong with a declaration before anything runs: pure functions, without network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from zoneinfo import available_timezones

from dagster._utils.schedules import is_valid_cron_schedule

from batch_pipeline.errors import BatchPipelineError, InvalidLocation, InvalidParameters, Problem
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.watches import Places, named, places_of
from batch_pipeline.settings import Settings
from batch_pipeline.triggers.settings import ModelTrigger, NotificationTrigger, ScheduleTrigger


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
    folders: list[Places] = []
    for number, (kind, trigger) in enumerate(named(declaration.triggers)):
        where = f"triggers.{number}"
        try:
            if isinstance(trigger, ScheduleTrigger):
                check_schedule(trigger, where)
            elif isinstance(trigger, ModelTrigger):
                yield from _of_model(declaration, where, again=kind != ModelTrigger.kind)
            elif declaration.template is not None:
                places = places_of(
                    trigger, declaration.name, kind, declaration.template, allow_local=settings.allow_local_files
                )
                folders.append(places)
                yield from _of_places(declaration, trigger, places, where, settings)
        except InvalidParameters as error:
            yield from error.problems
        except BatchPipelineError as error:
            yield Problem(where, error.message)
    yield from _shared(folders)
    yield from _same_times(declaration)


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
    from batch_pipeline.triggers.template import ServiceTemplate

    if isinstance(trigger, NotificationTrigger) and not trigger.queue_url.startswith(("https://", "http://")):
        what = (
            f"is {trigger.queue_url!r}; the address of a queue is expected: https://sqs.<region>.amazonaws.com/…/<name>"
        )
        yield Problem(f"{where}.queue_url", what)
    if places.watched is None:
        if not places.outputs.key:
            yield Problem(f"{where}.path", "must name a folder, since the output folders are all over their bucket")
        return
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


def _shared(folders: list[Places]) -> Iterator[Problem]:
    used = Counter(folder for places in folders for folder in (places.state, places.manifests) if folder is not None)
    for folder, count in used.items():
        if count > 1:
            yield Problem("triggers", f"{count} of them keep their state or manifests in {folder}: each needs its own")
