"""Find the runs of services on an instance, by partition."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun, RunRecord, RunsFilter

from batch_pipeline.orchestration.config import from_run_config
from batch_pipeline.orchestration.names import PARTITION

PAGE = 500


def run_records(instance: dg.DagsterInstance, names: Collection[str]) -> Iterator[RunRecord]:
    """The runs of these services, newest first, read page by page."""
    cursor = None
    filters = RunsFilter(tags={PARTITION: list(names)})
    while names:
        page = instance.get_run_records(filters, limit=PAGE, cursor=cursor)
        # Other assets may have a partition of the same name.
        yield from (record for record in page if from_run_config(record.dagster_run.run_config) is not None)
        if len(page) < PAGE:
            return
        cursor = page[-1].dagster_run.run_id


def latest_records(instance: dg.DagsterInstance, names: Collection[str]) -> dict[str, RunRecord]:
    """The newest run of each of these services; one that never ran is left out."""
    latest: dict[str, RunRecord] = {}
    for record in run_records(instance, names):
        latest.setdefault(record.dagster_run.tags[PARTITION], record)
        if len(latest) == len(names):
            break
    return latest


def latest_run(instance: dg.DagsterInstance, name: str) -> DagsterRun | None:
    record = latest_records(instance, [name]).get(name)
    return record.dagster_run if record is not None else None
