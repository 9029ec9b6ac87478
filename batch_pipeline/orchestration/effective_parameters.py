"""What a run was launched with: its own config, what the service was last given, and the template, in that order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.system_config.objects import ResolvedRunConfig

from batch_pipeline.orchestration.config import named_parameters
from batch_pipeline.orchestration.runs import edited_description, parents_description, recorded_config
from batch_pipeline.parameters import ServiceParameters
from batch_pipeline.settings import Settings

FIRST_OP = "ingest_manifest"


def effective_config(instance: dg.DagsterInstance, op_config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The parameters, as the config of the graph's first op and the records have them. Raises `InvalidParameters`.

    A template without placeholders is the one service's own record: what it says now goes before what it said then.
    """
    from batch_pipeline.triggers.template import Occasion, ServiceTemplate

    parameters: dict[str, Any] = op_config["parameters"]
    template = op_config["template"]
    if not parameters and (template is None or ServiceTemplate(template).placeholders):
        parameters = recorded_config(instance, op_config["declaration"], name) or {}
    if template is None:
        return parameters
    # What the Launchpad showed as it is written, for want of somebody to fill it in, was not given.
    given = {key: value for key, value in parameters.items() if value != template.get(key)}
    open_keys = {key: value for key, value in template.items() if key not in given}
    return {**ServiceTemplate(open_keys).expand(Occasion(name)), **given}


def effective_parameters(
    instance: dg.DagsterInstance, op_config: Mapping[str, Any], name: str, settings: Settings
) -> ServiceParameters:
    """Raises `InvalidParameters`."""
    config = effective_config(instance, op_config, name)
    return named_parameters(config, name, settings, declaration=op_config["declaration"])


def inherited_description(
    instance: dg.DagsterInstance, op_config: Mapping[str, Any], name: str, run: DagsterRun
) -> str | None:
    """The description that somebody edited, where this run is not given another; None where nobody did."""
    template = op_config["template"]
    # The template's own text in a run's config is what the Launchpad or a schedule filled in.
    filled_in = None if template is None else template.get("description", "")
    given = op_config["parameters"].get("description", filled_in)
    edited = edited_description(instance, op_config["declaration"], name, before=run)
    return edited if given in {filled_in, edited} and edited is not None else parents_description(instance, run)


def first_op_config(job: dg.JobDefinition, run_config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The config of a service's first op, as the steps will get it; None for a job of something else."""
    ops = ResolvedRunConfig.build(job, run_config).ops
    configs: list[Any] = [op.config for name, op in ops.items() if name.endswith(f".{FIRST_OP}")]
    return next(iter(configs), None)
