"""Find the runs of services on an instance, by declaration and partition."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun, RunRecord, RunsFilter

from batch_pipeline.orchestration.config import from_run_config
from batch_pipeline.orchestration.names import OUTPUT_MANIFEST, PARTITION, SERVICE, TAG_DECLARATION, job_name

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


def run_records(instance: dg.DagsterInstance, declaration: str, names: Collection[str]) -> Iterator[RunRecord]:
    """The runs of these services, newest first, read page by page."""
    cursor = None
    filters = RunsFilter(tags={PARTITION: list(names)})
    while names:
        page = instance.get_run_records(filters, limit=PAGE, cursor=cursor)
        # Other assets may have a partition of the same name.
        yield from (record for record in page if declaration_of(record.dagster_run) == declaration)
        if len(page) < PAGE:
            return
        cursor = page[-1].dagster_run.run_id


def latest_records(instance: dg.DagsterInstance, declaration: str, names: Collection[str]) -> dict[str, RunRecord]:
    """The newest run of each of these services; one that never ran is left out."""
    latest: dict[str, RunRecord] = {}
    for record in run_records(instance, declaration, names):
        latest.setdefault(record.dagster_run.tags[PARTITION], record)
        if len(latest) == len(names):
            break
    return latest


def latest_run(instance: dg.DagsterInstance, declaration: str, name: str) -> DagsterRun | None:
    record = latest_records(instance, declaration, [name]).get(name)
    return record.dagster_run if record is not None else None


def recorded_config(instance: dg.DagsterInstance, declaration: str, name: str) -> dict[str, Any] | None:
    """The parameters that the service was last given; None where no run of it was given any."""
    for record in run_records(instance, declaration, [name]):
        if config := from_run_config(record.dagster_run.run_config, declaration):
            return config
    return None
