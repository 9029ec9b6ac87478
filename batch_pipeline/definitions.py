"""The code location: what Dagster loads. Nothing is read or contacted but settings and the table of node specs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_shared.record import replace

from batch_pipeline.node_specs import load_node_specs
from batch_pipeline.orchestration.declaration import AD_HOC
from batch_pipeline.orchestration.executor import local_executor
from batch_pipeline.orchestration.factory import declare
from batch_pipeline.orchestration.model_assets import model_registry_definitions
from batch_pipeline.orchestration.resources import resources_of
from batch_pipeline.settings import Settings


def build_definitions(
    *,
    env: Mapping[str, str] = os.environ,
    executor: dg.ExecutorDefinition = local_executor,
    resource_overrides: Mapping[str, Any] | None = None,
) -> dg.Definitions:
    """The assets, jobs, sensors and executor of a deployment, with the services that its folder declares.

    `executor` may be another one, for example dagster-k8s's or dagster-ray's. Raises `InvalidSettings`.
    """
    settings = Settings.from_environment(env)
    merged = dg.Definitions.merge(
        declare(AD_HOC, load_node_specs(settings.node_specs), env, executor),
        model_registry_definitions(env),
        dg.Definitions(executor=executor, resources=resources_of(settings.step_outputs)),
        *([_declared(settings.services)] if settings.services is not None else []),
    )
    return replace(merged, resources={**(merged.resources or {}), **(resource_overrides or {})})


def _declared(folder: Path) -> dg.Definitions:
    from batch_pipeline.components.folder import load_folder

    return load_folder(folder)


defs = build_definitions()
