"""The job that deploys a service, and the run config that the Launchpad and a backfill start from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterHomeNotSetError

from batch_pipeline.errors import InvalidSettings
from batch_pipeline.orchestration.config import from_run_config, given
from batch_pipeline.orchestration.graph import services_partitions
from batch_pipeline.orchestration.names import INFERENCE_RESULTS, INPUT_MANIFEST, JOB, OUTPUT_MANIFEST, SERVICE

LAUNCHPAD_CONFIG = "BATCH_PIPELINE_LAUNCHPAD_CONFIG"
"""The setting that names a YAML or JSON file of parameters with which the Launchpad opens for a new service."""


def service_job() -> Any:
    """The job over the service's assets; every service has its own recorded parameters, a new one the default."""
    return dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.assets(INPUT_MANIFEST, INFERENCE_RESULTS, OUTPUT_MANIFEST),
        config=dg.PartitionedConfig(
            partitions_def=services_partitions, run_config_for_partition_key_fn=run_config_of_service
        ),
        description="Deploy one service: the partition is its name, the config its parameters.",
    )


def run_config_of_service(name: str) -> dict[str, Any]:
    """What the service of that name last ran with; for a new one the default of the Launchpad."""
    from batch_pipeline.orchestration.runs import latest_run

    try:
        with dg.DagsterInstance.get() as instance:
            run = latest_run(instance, name)
    except DagsterHomeNotSetError:
        run = None
    recorded = from_run_config(run.run_config) if run is not None else None
    parameters = recorded if recorded is not None else _launchpad_default()
    return {"ops": {SERVICE: {"config": parameters}}} if parameters else {}


def _launchpad_default() -> dict[str, Any]:
    """Raises `InvalidSettings` where the setting names a file that holds no parameters."""
    path = os.environ.get(LAUNCHPAD_CONFIG)
    if not path:
        return {}
    import yaml

    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InvalidSettings(f"{LAUNCHPAD_CONFIG}: {path}: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise InvalidSettings(f"{LAUNCHPAD_CONFIG}: {path}: must hold an object, the parameters of a service")
    config.pop("name", None)
    return given(config)
