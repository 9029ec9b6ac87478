"""Dagster's default run launcher, which here also knows the process that executes a run: to stop it, to miss it."""

import os
import signal
from contextlib import suppress

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.storage.tags import GRPC_INFO_TAG

from batch_pipeline.orchestration.holders import end_dead_run, holder_of


class ServiceRunLauncher(DefaultRunLauncher):
    """Starts runs on the code server. Runs of the command line, which it did not start, can be stopped from the UI.

    A run whose process is known to be gone is reported to the daemon's monitoring, also after the code server and the
    daemon went down with it. A run of which nobody said who executes it is Dagster's business alone.
    """

    def terminate(self, run_id: str) -> bool:
        """Ask the run to stop. False where it has ended, or nobody can be asked."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if holder_of(run) is None:
            return self._ask_code_server(run_id)
        if GRPC_INFO_TAG in run.tags:
            with suppress(DagsterUserCodeUnreachableError):
                if self._ask_code_server(run_id):
                    return True
        return _stop_holder(self._instance, run_id)

    def _ask_code_server(self, run_id: str) -> bool:
        return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Asked by the daemon's monitoring about every run at work; one that is not well is failed by it."""
        holder = holder_of(run)
        if holder is not None and holder.state() == "gone":
            return CheckRunHealthResult(WorkerStatus.FAILED, f"process {holder.pid} of {holder.host} is gone")
        return CheckRunHealthResult(WorkerStatus.RUNNING)


def _stop_holder(instance: dg.DagsterInstance, run_id: str) -> bool:
    """By the process itself, where no code server knows it or is left to tell it."""
    run = instance.get_run_by_id(run_id)
    holder = holder_of(run) if run is not None else None
    if run is None or holder is None or run.is_finished:
        return False
    if run.status != dg.DagsterRunStatus.CANCELING:
        # A process of the command line watches the status of its run.
        instance.report_run_canceling(run)
        run = instance.get_run_by_id(run_id) or run
    if end_dead_run(instance, run):
        return True
    if GRPC_INFO_TAG in run.tags and holder.state() == "alive":
        # As its code server would have done.
        os.kill(holder.pid, signal.SIGINT)
    return True
