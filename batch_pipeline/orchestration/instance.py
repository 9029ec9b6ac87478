"""The Dagster instance that the command line works with: that of DAGSTER_HOME, or of a folder of the user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from batch_pipeline.errors import InvalidSettings
from batch_pipeline.orchestration.home import use_dagster_home

_QUIET: dict[str, Any] = {
    "python_logs": {"python_log_level": "CRITICAL"},
    # Capturing what steps print would redirect the command line's own progress, too.
    "compute_logs": {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"},
}


def open_instance(*, quiet: bool = False, env: Mapping[str, str] = os.environ) -> dg.DagsterInstance:
    """The instance of `dagster_home()`. A `quiet` one keeps the events of its runs off standard error.

    Raises `InvalidSettings` where the instance's own configuration can't be used.
    """
    home = use_dagster_home(env)
    overrides = _QUIET if quiet else {}
    try:
        return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=overrides))
    except (dg.DagsterInvalidConfigError, dg.DagsterInvariantViolationError) as error:
        raise InvalidSettings(f"{home}/dagster.yaml: {' '.join(str(error).split())}") from error
