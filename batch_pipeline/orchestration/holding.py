"""Keep a run's lock on its output folder alive from the process that executes it, and give it back at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun

from batch_pipeline.orchestration.config import from_run_config, named_parameters
from batch_pipeline.orchestration.holders import owner_of
from batch_pipeline.orchestration.names import PARTITION
from batch_pipeline.orchestration.resources import DeploymentResource


@contextmanager
def holding(instance: dg.DagsterInstance, run: DagsterRun) -> Iterator[None]:
    """For a run whose first step has taken the output folder."""
    from batch_pipeline import service

    name = run.tags[PARTITION]
    deployment = DeploymentResource().get()
    parameters = named_parameters(from_run_config(run.run_config) or {}, name, deployment.settings)
    owner = owner_of(instance.get_run_by_id(run.run_id) or run, name)
    try:
        with service.owned(parameters.output, deployment, owner):
            yield
    finally:
        service.release(parameters.output, deployment, owner.run_id)
