"""Find the runs of services on an instance, by declaration and partition."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES, DagsterRun, RunRecord, RunsFilter

from batch_pipeline.orchestration.code_location import declared_here
from batch_pipeline.orchestration.config import from_run_config
from batch_pipeline.orchestration.holders import is_dead
from batch_pipeline.orchestration.names import (
    ASSETS,
    OUTPUT_MANIFEST,
    PARTITION,
    SERVICE,
    STEPS,
    TAG_DECLARATION,
    TAG_DESCRIPTION,
    TAG_EDITED,
    TAG_OUTPUT,
    TAG_REFUSED,
    TAG_SERVICE,
)

PAGE = 500
_STEPS = set(STEPS)


def declaration_of(run: DagsterRun) -> str | None:
    """The declaration whose service the run deploys; None for a run of something else.

    A run that has not started, and was made by a selection of assets where the queue is not ours, tells it by nothing
    but their keys.
    """
    if TAG_DECLARATION in run.tags:
        return run.tags[TAG_DECLARATION]
    # Not by the name of its job, which another project may use for something else.
    if TAG_SERVICE in run.tags or from_run_config(run.run_config) is not None:
        return SERVICE
    selected = run.asset_selection or ()
    prefixes = [key.path[:-1] for key in selected if key.path[-1] == OUTPUT_MANIFEST]
    ours = [prefix for prefix in prefixes if all(dg.AssetKey([*prefix, name]) in selected for name in ASSETS)]
    return next(((prefix or [SERVICE])[-1] for prefix in ours), None)


def declaration_of_job(instance: dg.DagsterInstance, run: DagsterRun) -> str | None:
    """The declaration whose graph of steps is in the run's job; None where there is none, or more than one."""
    job = instance.get_job_snapshot(run.job_snapshot_id) if run.job_snapshot_id else None
    graphs = job.node_defs_snapshot.graph_def_snaps if job is not None else ()
    ours = [graph.name for graph in graphs if {node.node_name for node in _nodes(graph)} >= _STEPS]
    return ours[0] if len(ours) == 1 else None


def _nodes(graph: Any) -> Sequence[Any]:
    return graph.dep_structure_snapshot.node_invocation_snaps  # type: ignore[no-any-return]


def declarations(instance: dg.DagsterInstance) -> list[str]:
    """Every declaration that the instance can know of, in order of name, after that of the Launchpad.

    Those of our own code location are known before they have a run; those of others by a run, also one that waits or
    was deleted since.
    """
    tagged = (value for _, values in instance.get_run_tags(tag_keys=[TAG_DECLARATION]) for value in values)
    keys = {tuple(key.path) for key in instance.all_asset_keys()}
    prefixes = (key[:-1] for key in keys if key[-1] == OUTPUT_MANIFEST and len(key) > 1)
    indexed = (prefix[-1] for prefix in prefixes if all((*prefix, name) in keys for name in ASSETS))
    return [SERVICE, *sorted({*tagged, *indexed, *declared_here()})]


def unfinished_runs(instance: dg.DagsterInstance) -> Iterator[tuple[str, str]]:
    """Declaration and partition of each service that has a run at work or in the queue, whatever became of both."""
    for run in instance.get_runs(RunsFilter(statuses=NOT_FINISHED_STATUSES)):
        declaration = declaration_of(run) if PARTITION in run.tags else None
        if declaration is not None:
            yield declaration, run.tags[PARTITION]


def run_records(
    instance: dg.DagsterInstance,
    declaration: str,
    names: Collection[str],
    statuses: Sequence[dg.DagsterRunStatus] = (),
) -> Iterator[RunRecord]:
    """The runs of these services, all or those of some statuses, newest first, read page by page."""
    cursor = None
    filters = RunsFilter(tags={PARTITION: list(names)}, statuses=statuses)
    while names:
        page = instance.get_run_records(filters, limit=PAGE, cursor=cursor)
        # Other assets may have a partition of the same name.
        yield from (record for record in page if declaration_of(record.dagster_run) == declaration)
        if len(page) < PAGE:
            return
        cursor = page[-1].dagster_run.run_id


def latest_records(instance: dg.DagsterInstance, declaration: str, names: Collection[str]) -> dict[str, RunRecord]:
    """The run by which each of these services is known: its newest at work, else its newest.

    A service that never ran is left out.
    """
    latest = _first_met(instance, declaration, names)
    at_work = list(run_records(instance, declaration, names, NOT_FINISHED_STATUSES))
    # A newer run may have been refused because another is at work.
    latest |= {each.dagster_run.tags[PARTITION]: each for each in reversed(at_work) if not is_dead(each.dagster_run)}
    return latest


def oldest_records(
    instance: dg.DagsterInstance, declaration: str, names: Collection[str], counts: Callable[[DagsterRun], bool]
) -> dict[str, RunRecord]:
    """The first run of each of these services that counts; a service without one is left out."""
    return _first_met(instance, declaration, names, counts, ascending=True)


def _first_met(
    instance: dg.DagsterInstance,
    declaration: str,
    names: Collection[str],
    counts: Callable[[DagsterRun], bool] = lambda _: True,
    *,
    ascending: bool = False,
) -> dict[str, RunRecord]:
    """The newest run of each of these services, or the oldest where runs are met in ascending order."""
    found: dict[str, RunRecord] = {}
    missing, cursor = list(names), None
    while missing:
        # A service that is found is asked for no more: its other runs may be thousands.
        filters = RunsFilter(tags={PARTITION: missing})
        page = instance.get_run_records(filters, limit=PAGE, cursor=cursor, ascending=ascending)
        for record in page:
            if declaration_of(record.dagster_run) == declaration and counts(record.dagster_run):
                found.setdefault(record.dagster_run.tags[PARTITION], record)
        if len(page) < PAGE:
            break
        missing = [name for name in missing if name not in found]
        cursor = page[-1].dagster_run.run_id
    return found


def latest_run(instance: dg.DagsterInstance, declaration: str, name: str) -> DagsterRun | None:
    record = latest_records(instance, declaration, [name]).get(name)
    return record.dagster_run if record is not None else None


def recorded_config(instance: dg.DagsterInstance, declaration: str, name: str) -> dict[str, Any] | None:
    """The parameters that the service was last given, its description as edited since; None where it has none.

    Those of a run that was refused before anything was written count only where there are no others.
    """
    config = _last_given(instance, declaration, name)
    edited = edited_description(instance, declaration, name) if config else None
    return config if config is None or edited is None else {**config, "description": edited}


def _last_given(instance: dg.DagsterInstance, declaration: str, name: str) -> dict[str, Any] | None:
    refused = None
    for record in run_records(instance, declaration, [name]):
        config = given_config(record.dagster_run, declaration)
        if config and not was_refused(record.dagster_run):
            return config
        refused = refused or config or None
    return refused


def last_not_refused(instance: dg.DagsterInstance, declaration: str, name: str) -> DagsterRun | None:
    """The service's newest run that was not refused before anything was written."""
    runs = (record.dagster_run for record in run_records(instance, declaration, [name]))
    return next((run for run in runs if not was_refused(run)), None)


def was_refused(run: DagsterRun) -> bool:
    """Whether it was refused before anything was written."""
    return run.tags.get(TAG_REFUSED) == run.run_id


def given_config(run: DagsterRun, declaration: str) -> dict[str, Any]:
    """The parameters that the run was given, its description as edited since."""
    config = from_run_config(run.run_config, declaration) or {}
    return {**config, "description": run.tags[TAG_DESCRIPTION]} if config and TAG_DESCRIPTION in run.tags else config


def edited_description(
    instance: dg.DagsterInstance, declaration: str, name: str, *, before: DagsterRun | None = None
) -> str | None:
    """The service's description where it is one that somebody edited; None where its last run was given another.

    A run hands it on to the next, so no older ones are asked.
    """
    for record in run_records(instance, declaration, [name]):
        run = record.dagster_run
        if before is None or run.run_id != before.run_id:
            edited = _edited(run)
            # One that was refused, or came to nothing sooner, has no say.
            if edited is not None or (TAG_OUTPUT in run.tags and not was_refused(run)):
                return edited
    return None


def parents_description(instance: dg.DagsterInstance, run: DagsterRun) -> str | None:
    """As edited on the run that this one re-executes as it was."""
    parent = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    return _edited(parent) if parent is not None and parent.run_config == run.run_config else None


def _edited(run: DagsterRun) -> str | None:
    return run.tags.get(TAG_DESCRIPTION, "") if run.tags.get(TAG_EDITED) else None
