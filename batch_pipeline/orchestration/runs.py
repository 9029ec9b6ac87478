"""Find the runs of services on an instance, by declaration and partition."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES, DagsterRun, RunRecord, RunsFilter

from batch_pipeline.orchestration.config import from_run_config
from batch_pipeline.orchestration.holders import is_dead
from batch_pipeline.orchestration.names import (
    OUTPUT_MANIFEST,
    PARTITION,
    SERVICE,
    TAG_DECLARATION,
    TAG_DESCRIPTION,
    job_name,
)

PAGE = 500


def declaration_of(run: DagsterRun) -> str | None:
    """The declaration whose service the run deploys; None for a run of something else.

    A run that has not started, and was made by a selection of assets, tells it by nothing but their keys.
    """
    if TAG_DECLARATION in run.tags:
        return run.tags[TAG_DECLARATION]
    if run.job_name == job_name(SERVICE) or from_run_config(run.run_config) is not None:
        return SERVICE
    keys = [key.path for key in run.asset_selection or () if key.path[-1] == OUTPUT_MANIFEST]
    return keys[0][-2] if keys and len(keys[0]) > 1 else None


def declarations(instance: dg.DagsterInstance) -> list[str]:
    """Every declaration that the instance has had runs of, in order of name, after that of the Launchpad."""
    known = instance.get_run_tags(tag_keys=[TAG_DECLARATION])
    return [SERVICE, *sorted(value for _, values in known for value in values)]


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
    latest = _newest_records(instance, declaration, names)
    at_work = list(run_records(instance, declaration, names, NOT_FINISHED_STATUSES))
    # A newer run may have been refused because another is at work.
    latest |= {each.dagster_run.tags[PARTITION]: each for each in reversed(at_work) if not is_dead(each.dagster_run)}
    return latest


def _newest_records(instance: dg.DagsterInstance, declaration: str, names: Collection[str]) -> dict[str, RunRecord]:
    latest: dict[str, RunRecord] = {}
    missing, cursor = list(names), None
    while missing:
        # A service that is found is asked for no more: its older runs may be thousands.
        page = instance.get_run_records(RunsFilter(tags={PARTITION: missing}), limit=PAGE, cursor=cursor)
        for record in page:
            if declaration_of(record.dagster_run) == declaration:
                latest.setdefault(record.dagster_run.tags[PARTITION], record)
        if len(page) < PAGE:
            break
        missing = [name for name in missing if name not in latest]
        cursor = page[-1].dagster_run.run_id
    return latest


def oldest_records(
    instance: dg.DagsterInstance, declaration: str, names: Collection[str], counts: Callable[[DagsterRun], bool]
) -> dict[str, RunRecord]:
    """The first run of each of these services that counts; a service without one is left out."""
    oldest: dict[str, RunRecord] = {}
    missing, cursor = list(names), None
    while missing:
        filters = RunsFilter(tags={PARTITION: missing})
        page = instance.get_run_records(filters, limit=PAGE, cursor=cursor, ascending=True)
        for record in page:
            if declaration_of(record.dagster_run) == declaration and counts(record.dagster_run):
                oldest.setdefault(record.dagster_run.tags[PARTITION], record)
        if len(page) < PAGE:
            break
        missing = [name for name in missing if name not in oldest]
        cursor = page[-1].dagster_run.run_id
    return oldest


def latest_run(instance: dg.DagsterInstance, declaration: str, name: str) -> DagsterRun | None:
    record = latest_records(instance, declaration, [name]).get(name)
    return record.dagster_run if record is not None else None


def recorded_config(instance: dg.DagsterInstance, declaration: str, name: str) -> dict[str, Any] | None:
    """The parameters that the service was last given, its description as edited since; None where it has none."""
    for record in run_records(instance, declaration, [name]):
        if config := given_config(record.dagster_run, declaration):
            return config
    return None


def given_config(run: DagsterRun, declaration: str) -> dict[str, Any]:
    """The parameters that the run was given, its description as edited since."""
    config = from_run_config(run.run_config, declaration) or {}
    return {**config, "description": run.tags[TAG_DESCRIPTION]} if config and TAG_DESCRIPTION in run.tags else config


def inherited_description(instance: dg.DagsterInstance, run: DagsterRun) -> str | None:
    """The description of the run that this one re-executes as it was: it may have been edited since."""
    parent = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    return parent.tags.get(TAG_DESCRIPTION) if parent is not None and parent.run_config == run.run_config else None
