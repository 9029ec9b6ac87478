"""The Dagster instance that the command line works with: DAGSTER_HOME, or a folder of the user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from batch_pipeline.errors import InvalidSettings
from batch_pipeline.orchestration.shipped import INSTANCE

_QUIET: dict[str, Any] = {
    "python_logs": {"python_log_level": "CRITICAL"},
    # Capturing what steps print would redirect the command line's own progress, too.
    "compute_logs": {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"},
}


def dagster_home(env: Mapping[str, str] = os.environ) -> Path:
    """`DAGSTER_HOME`, else a folder of the user's, made with our dagster.yaml when it is first asked for.

    Raises `InvalidSettings` where `DAGSTER_HOME` is no folder, or the folder can't be made.
    """
    if env.get("DAGSTER_HOME"):
        home = Path(env["DAGSTER_HOME"]).expanduser()
        if not home.is_absolute() or not home.is_dir():
            raise InvalidSettings(f"DAGSTER_HOME: {home} must be the absolute path of a folder that exists")
        return home
    data = Path(env.get("XDG_DATA_HOME", ""))
    home = (data if data.is_absolute() else Path.home() / ".local" / "share") / "batch-pipeline"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "dagster.yaml").exists():
            (home / "dagster.yaml").write_bytes(INSTANCE.read_bytes())
    except OSError as error:
        raise InvalidSettings(f"{home} can't be made: {error.strerror}; set DAGSTER_HOME to a folder") from error
    return home


def open_instance(*, quiet: bool = False, env: Mapping[str, str] = os.environ) -> dg.DagsterInstance:
    """The instance of `dagster_home()`. A `quiet` one keeps the events of its runs off standard error.

    Raises `InvalidSettings` where the instance's own configuration can't be used.
    """
    home = dagster_home(env)
    # Processes that a run starts find the instance by it.
    os.environ["DAGSTER_HOME"] = str(home)
    overrides = _QUIET if quiet else {}
    try:
        return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=overrides))
    except (dg.DagsterInvalidConfigError, dg.DagsterInvariantViolationError) as error:
        raise InvalidSettings(f"{home}/dagster.yaml: {' '.join(str(error).split())}") from error
