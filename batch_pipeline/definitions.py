"""The code location: what Dagster loads. Nothing is read or contacted but settings and the table of node specs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from batch_pipeline.node_specs import load_node_specs
from batch_pipeline.orchestration.declaration import AD_HOC
from batch_pipeline.orchestration.executor import local_executor
from batch_pipeline.orchestration.factory import declare
from batch_pipeline.orchestration.model_assets import model_registry_definitions
from batch_pipeline.orchestration.resources import DeploymentResource, step_outputs
from batch_pipeline.settings import Settings


def build_definitions(
    *,
    env: Mapping[str, str] = os.environ,
    executor: dg.ExecutorDefinition = local_executor,
    resource_overrides: Mapping[str, Any] | None = None,
) -> dg.Definitions:
    """The assets, jobs, sensor and executor of a deployment.

    `executor` may be another one, for example dagster-k8s's or dagster-ray's. Raises `InvalidSettings`.
    """
    settings = Settings.from_environment(env)
    return dg.Definitions.merge(
        declare(AD_HOC, load_node_specs(settings.node_specs), env, executor),
        model_registry_definitions(env),
        dg.Definitions(
            executor=executor,
            resources={
                "deployment": DeploymentResource(),
                **step_outputs(settings.step_outputs),
                **(resource_overrides or {}),
            },
        ),
    )


defs = build_definitions()
