"""The job that deploys a service, and the run config that the Launchpad and a backfill start from."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterHomeNotSetError

from batch_pipeline.documents import parse_yaml, read_text
from batch_pipeline.errors import InvalidParameters, InvalidSettings, Refused
from batch_pipeline.orchestration.config import given, to_run_config
from batch_pipeline.orchestration.declaration import AD_HOC, Declaration
from batch_pipeline.orchestration.names import (
    ALL_STEPS,
    INFERENCE_RESULTS,
    INPUT_MANIFEST,
    OUTPUT_MANIFEST,
    RETRY_STRATEGY,
    TAG_DECLARATION,
    TAG_SERVICE,
    full_name,
)

LAUNCHPAD_CONFIG = "BATCH_PIPELINE_LAUNCHPAD_CONFIG"
"""The setting that names a YAML or JSON file of parameters with which the Launchpad opens for a new service."""


def service_job(declaration: Declaration = AD_HOC, executor: dg.ExecutorDefinition | None = None) -> Any:
    """The job over the assets; every service has its own recorded parameters, a new one the default."""
    return dg.define_asset_job(
        declaration.job,
        selection=dg.AssetSelection.assets(
            *(declaration.key(asset) for asset in (INPUT_MANIFEST, INFERENCE_RESULTS, OUTPUT_MANIFEST))
        ),
        config=dg.PartitionedConfig(
            partitions_def=declaration.partitions,
            run_config_for_partition_key_fn=partial(run_config_of_service, declaration=declaration),
            # The queue goes by it: one run of a service at a time.
            tags_for_partition_key_fn=lambda name: {TAG_SERVICE: full_name(declaration.name, name)},
        ),
        executor_def=executor,
        tags={TAG_DECLARATION: declaration.name, "dagster/kind/onnx": "", **declaration.tags},
        # What else is said of the declaration stays with the job.
        run_tags={
            RETRY_STRATEGY: ALL_STEPS,
            **({} if declaration.is_ad_hoc else {TAG_DECLARATION: declaration.name}),
        },
        owners=list(declaration.owners) or None,
        description=_description(declaration),
    )


def _description(declaration: Declaration) -> str:
    which = "" if declaration.is_ad_hoc else f" of `{declaration.name}`"
    last = "" if declaration.is_fixed else "what it was last given, then "
    ask = "" if declaration.template is None else f" Without any: {last}the template."
    partition = f"`{declaration.name}`" if declaration.is_fixed else "its name"
    says = f"Deploy one service{which}: the partition is {partition}, the config its parameters.{ask}"
    return "\n\n".join(filter(None, (says, declaration.description)))


def run_config_of_service(name: str, declaration: Declaration = AD_HOC) -> dict[str, Any]:
    """What the service of that name last ran with; for a new one its template, or the default of the Launchpad.

    For the one of a fixed declaration it is always the template. The description is as it was edited.
    """
    recorded, description = _recorded(name, declaration)
    parameters = _default(name, declaration) if recorded is None or declaration.is_fixed else recorded
    edited = {} if description is None else {"description": description}
    return to_run_config({**parameters, **edited}, declaration.name) if parameters else {}


def _recorded(name: str, declaration: Declaration) -> tuple[dict[str, Any] | None, str | None]:
    from batch_pipeline.orchestration.runs import edited_description, recorded_config

    try:
        with dg.DagsterInstance.get() as instance:
            recorded = recorded_config(instance, declaration.name, name)
            return recorded, edited_description(instance, declaration.name, name)
    except DagsterHomeNotSetError:
        return None, None


def _default(name: str, declaration: Declaration) -> dict[str, Any]:
    if declaration.template is None:
        return _launchpad_default()
    from batch_pipeline.triggers.template import Occasion, ServiceTemplate

    try:
        return ServiceTemplate(declaration.template).expand(Occasion(name))
    except InvalidParameters:
        # A text needs what only a trigger knows. The Launchpad shows it as it is written, for a person to replace; the
        # first step refuses what was left so.
        return dict(declaration.template)


def _launchpad_default() -> dict[str, Any]:
    """Raises `InvalidSettings` where the setting names a file that holds no parameters."""
    path = os.environ.get(LAUNCHPAD_CONFIG)
    if not path:
        return {}
    what = f"{LAUNCHPAD_CONFIG}: {path}"
    try:
        config = parse_yaml(read_text(Path(path), what), what)
    except Refused as error:
        raise InvalidSettings(error.message) from error
    except OSError as error:
        raise InvalidSettings(f"{what}: {error.strerror}") from error
    if not isinstance(config, dict):
        raise InvalidSettings(f"{what}: must hold an object, the parameters of a service")
    config.pop("name", None)
    return given(config)
