"""What a run was launched with: its own config, what the service last ran with, and the template, in that order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.system_config.objects import ResolvedRunConfig

from batch_pipeline.orchestration.config import named_parameters
from batch_pipeline.orchestration.runs import recorded_config
from batch_pipeline.parameters import ServiceParameters
from batch_pipeline.settings import Settings

FIRST_OP = "ingest_manifest"


def effective_config(instance: dg.DagsterInstance, op_config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The parameters, as the config of the graph's first op and the records have them. Raises `InvalidParameters`."""
    from batch_pipeline.triggers.template import Occasion, ServiceTemplate

    declaration, template = op_config["declaration"], op_config["template"]
    parameters: dict[str, Any] = op_config["parameters"] or recorded_config(instance, declaration, name) or {}
    if template is None:
        return parameters
    open_keys = {key: value for key, value in template.items() if key not in parameters}
    return {**ServiceTemplate(open_keys).expand(Occasion(name)), **parameters}


def effective_parameters(
    instance: dg.DagsterInstance, op_config: Mapping[str, Any], name: str, settings: Settings
) -> ServiceParameters:
    """Raises `InvalidParameters`."""
    config = effective_config(instance, op_config, name)
    return named_parameters(config, name, settings, declaration=op_config["declaration"])


def first_op_config(job: dg.JobDefinition, run_config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The config of a service's first op, as the steps will get it; None for a job of something else."""
    ops = ResolvedRunConfig.build(job, run_config).ops
    configs: list[Any] = [op.config for name, op in ops.items() if name.endswith(f".{FIRST_OP}")]
    return next(iter(configs), None)
