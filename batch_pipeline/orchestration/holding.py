"""Keep a run's lock on its output folder alive from the process that executes it, and give it back at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun

from batch_pipeline.locations import parse_folder
from batch_pipeline.orchestration.holders import owner_of
from batch_pipeline.orchestration.names import TAG_OUTPUT, TAG_SERVICE
from batch_pipeline.orchestration.resources import DeploymentResource


@contextmanager
def holding(instance: dg.DagsterInstance, run: DagsterRun) -> Iterator[None]:
    """For a run whose first step has taken the output folder."""
    from batch_pipeline import service

    deployment = DeploymentResource().get()
    tagged = instance.get_run_by_id(run.run_id) or run
    output = parse_folder(tagged.tags[TAG_OUTPUT], allow_local=True)
    owner = owner_of(tagged, tagged.tags[TAG_SERVICE])
    try:
        with service.owned(output, deployment, owner):
            yield
    finally:
        service.release(output, deployment, owner.run_id)
