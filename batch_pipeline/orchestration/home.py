"""Where the Dagster instance is: DAGSTER_HOME, or a folder of the user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from batch_pipeline.errors import InvalidSettings
from batch_pipeline.orchestration.shipped import INSTANCE


def use_dagster_home(env: Mapping[str, str] = os.environ) -> Path:
    """`dagster_home()`, which processes that a run starts find by the environment from now on."""
    home = dagster_home(env)
    os.environ["DAGSTER_HOME"] = str(home)
    return home


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
        # Runs are kept there with the literal values of their `environment`.
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (home / "dagster.yaml").exists():
            (home / "dagster.yaml").write_bytes(INSTANCE.read_bytes())
    except OSError as error:
        raise InvalidSettings(f"{home} can't be made: {error.strerror}; set DAGSTER_HOME to a folder") from error
    return home
