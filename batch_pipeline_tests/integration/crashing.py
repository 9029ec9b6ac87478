"""Ticks by the daemon's own code in a process of their own, the last of which is killed at a step of one's choice.

`python -m batch_pipeline_tests.integration.crashing WORKSPACE [STEP PREPARED DROPPED]`: one whole round over all
sensors; where there is a step, the folder of prepared files is then dropped, and the next round is killed at that step.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from pathlib import Path

from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.controller import create_daemon_grpc_server_registry
from dagster._daemon.sensor import execute_sensor_iteration

from batch_pipeline.orchestration.instance import open_instance

STEPS = ("TICK_CREATED", "TICK_HELD", "RUN_IDS_RESERVED", "RUN_CREATED", "RUN_LAUNCHED")
"""Of one tick, in their order; those of a run are of its first."""
SENSOR = "reviews_manifests"


def main(workspace: str, step: str = "", prepared: str = "", dropped: str = "") -> None:
    with (
        open_instance(quiet=True) as instance,
        create_daemon_grpc_server_registry(instance) as registry,
        WorkspaceProcessContext(instance, WorkspaceFileTarget([workspace]), grpc_server_registry=registry) as context,
    ):
        _round(context, None)
        if step:
            for file in sorted(Path(prepared).iterdir()):
                file.rename(Path(dropped) / file.name)
            # Longer than the interval of the sensor.
            time.sleep(1.5)
            _round(context, {SENSOR: {step: signal.SIGKILL}})


def _round(context: WorkspaceProcessContext, crash: dict[str, dict[str, signal.Signals]] | None) -> None:
    for error in execute_sensor_iteration(context, logging.getLogger(), None, None, debug_crash_flags=crash):
        assert error is None, error


if __name__ == "__main__":
    main(*sys.argv[1:])
