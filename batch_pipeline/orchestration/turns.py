"""Which runs are let in at the limit of services, however many come at once: who was launched first.

A launch has its place, the storage id of its run, before anybody asks, and a service has the place of its first run
that was not refused. So every run that asks reads the same order, and no lock is needed: places before one's own can
only become free. What was decided is noted on the run; a service that was let in stays in.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Literal

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES, DagsterRun, RunsFilter

from batch_pipeline.errors import LimitReached, ServiceNotFound
from batch_pipeline.orchestration.admission import existing_services, refuse_above_limit
from batch_pipeline.orchestration.identity import ServiceId
from batch_pipeline.orchestration.names import PARTITION, TAG_NEW_MODEL, full_name
from batch_pipeline.orchestration.runs import declaration_of, oldest_records, run_records, was_refused
from batch_pipeline.settings import Settings

TAG_ADMISSION = ".dagster/batch_pipeline/admission"
"""What was decided, and of which run: a re-execution has its parent's tags. The UI shows no tag that begins so."""

Verdict = Literal["admitted", "refused"]


def admit(instance: dg.DagsterInstance, declaration: str, run: DagsterRun, settings: Settings) -> None:
    """Let the service of a run in, and count it from now on. Raises `LimitReached`, `ServiceNotFound`.

    One that is refused has no part in the order any more, and may be launched again.
    """
    name = run.tags[PARTITION]
    # A fixed declaration's one service is named as itself, and needs no record.
    recorded = name == declaration or instance.has_dynamic_partition(declaration, name)
    if TAG_NEW_MODEL in run.tags and _is_deleted(instance, declaration, run):
        raise ServiceNotFound(f"{full_name(declaration, name)} was deleted after the backfill of its model was started")
    if not _is_admitted(instance, declaration, name):
        try:
            _refuse_without_room(instance, ServiceId(declaration, name), settings)
        except LimitReached:
            _note(instance, run, "refused")
            raise
        _note(instance, run, "admitted")
    if not recorded:
        instance.add_dynamic_partitions(declaration, [name])


def _is_deleted(instance: dg.DagsterInstance, declaration: str, run: DagsterRun) -> bool:
    """Whether there is no service to run again any more: no record or, of a fixed one, no run but of this backfill."""
    name = run.tags[PARTITION]
    if name != declaration or instance.has_dynamic_partition(declaration, name):
        return not instance.has_dynamic_partition(declaration, name)
    others = (record.dagster_run for record in run_records(instance, declaration, [name]))
    model = run.tags[TAG_NEW_MODEL]
    return all(
        each.run_id == run.run_id or (was_refused(each) and each.tags.get(TAG_NEW_MODEL) == model) for each in others
    )


def refused_services(instance: dg.DagsterInstance, existing: Mapping[str, Collection[str]]) -> set[ServiceId]:
    """Those existing services of which every launch was refused."""
    noted = instance.get_run_tags([TAG_ADMISSION], value_prefix="refused ")
    run_ids = [value.removeprefix("refused ") for _, values in noted for value in values]
    runs = instance.get_runs(RunsFilter(run_ids=run_ids)) if run_ids else ()
    found = {each for each in map(_service, runs) if each and each.partition in existing.get(each.declaration, ())}
    return found - _places(instance, found).keys() if found else found


def _refuse_without_room(instance: dg.DagsterInstance, service: ServiceId, settings: Settings) -> None:
    existing = existing_services(instance)
    at_work = RunsFilter(statuses=NOT_FINISHED_STATUSES)
    # Whoever may be before us is in the list, or about to be and at work.
    if sum(map(len, existing.values())) + instance.get_runs_count(at_work) <= settings.max_services:
        return
    listed = {ServiceId(declaration, name) for declaration, names in existing.items() for name in names}
    starting = {each for each in map(_service, instance.get_runs(at_work)) if each is not None}
    places = _places(instance, listed | starting)
    # A run that was refused and asks again has no place: everyone else is before it.
    own = places.get(service, math.inf)
    refuse_above_limit(sum(place < own for place in places.values()), settings)


def _places(instance: dg.DagsterInstance, services: Collection[ServiceId]) -> dict[ServiceId, int]:
    """The place of each service that was launched and not refused."""
    names: dict[str, set[str]] = {}
    for each in services:
        names.setdefault(each.declaration, set()).add(each.partition)
    return {
        ServiceId(declaration, name): record.storage_id
        for declaration, some in names.items()
        for name, record in oldest_records(instance, declaration, some, lambda run: not _is(run, "refused")).items()
    }


def _is_admitted(instance: dg.DagsterInstance, declaration: str, name: str) -> bool:
    return any(_is(record.dagster_run, "admitted") for record in run_records(instance, declaration, [name]))


def _note(instance: dg.DagsterInstance, run: DagsterRun, verdict: Verdict) -> None:
    instance.add_run_tags(run.run_id, {TAG_ADMISSION: f"{verdict} {run.run_id}"})


def _is(run: DagsterRun, verdict: Verdict) -> bool:
    return run.tags.get(TAG_ADMISSION) == f"{verdict} {run.run_id}"


def _service(run: DagsterRun) -> ServiceId | None:
    declaration, name = declaration_of(run), run.tags.get(PARTITION)
    return ServiceId(declaration, name) if declaration is not None and name is not None else None
