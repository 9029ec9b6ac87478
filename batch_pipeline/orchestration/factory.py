"""The definitions of a declaration: its assets, job, sensors and schedule. Every declaration is made here."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from batch_pipeline.node_specs import NodeSpecs
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.executor import local_executor
from batch_pipeline.orchestration.graph import service_assets
from batch_pipeline.orchestration.job import service_job
from batch_pipeline.orchestration.schedules import schedules_of
from batch_pipeline.orchestration.sensors import sensors_of


def declare(
    declaration: Declaration,
    specs: NodeSpecs,
    env: Mapping[str, str],
    executor: dg.ExecutorDefinition = local_executor,
) -> dg.Definitions:
    """All that Dagster is to know of the services of this declaration, but for the resources.

    Raises `InvalidParameters` where its template can't be any service's.
    """
    job = service_job(declaration, executor)
    return dg.Definitions(
        assets=service_assets(declaration, specs, env),
        jobs=[job],
        sensors=sensors_of(declaration, job),
        schedules=schedules_of(declaration, job),
    )
