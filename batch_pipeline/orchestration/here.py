"""Execute a run in this very process, with no daemon, and stop it by signal or from the UI."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.execution.api import execute_run
from dagster._core.storage.dagster_run import DagsterRun

from batch_pipeline.errors import StorageFailed
from batch_pipeline.orchestration.holders import free_slots
from batch_pipeline.orchestration.resources import DeploymentResource
from batch_pipeline.parameters import ServiceParameters

if TYPE_CHECKING:
    from batch_pipeline.deployment import Deployment
    from batch_pipeline.node.job import Progress

WATCH_SECONDS = 1.0


def execute_here(
    instance: dg.DagsterInstance,
    job: ReconstructableJob,
    run: DagsterRun,
    parameters: ServiceParameters,
    on_progress: Callable[[Progress], None] | None,
) -> DagsterRun:
    """The run as it has ended. SIGINT and SIGTERM stop it, as does its own status, CANCELING, from the UI."""
    deployment = DeploymentResource().get()
    with _terminating():
        try:
            with _watching(instance, run.run_id, parameters, deployment, on_progress):
                execute_run(job, run, instance)
        except KeyboardInterrupt:
            # It came before or after Dagster was listening: the run may not know of it yet, or may have ended.
            _cancel(instance, run.run_id)
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    if not ended.is_finished:
        _cancel(instance, run.run_id)
        ended = instance.get_run_by_id(run.run_id) or ended
    free_slots(instance, run.run_id)
    return ended


def _cancel(instance: dg.DagsterInstance, run_id: str) -> None:
    run = instance.get_run_by_id(run_id)
    if run is not None and not run.is_finished:
        instance.report_run_canceled(run)


@contextmanager
def _terminating() -> Iterator[None]:
    """SIGTERM does what SIGINT does. Dagster replaces both while it executes, and leaves SIGTERM changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _watching(
    instance: dg.DagsterInstance,
    run_id: str,
    parameters: ServiceParameters,
    deployment: Deployment,
    on_progress: Callable[[Progress], None] | None,
) -> Iterator[None]:
    """Look at the run's own status, which no launcher does for a run of ours, and at how far the nodes are."""
    ended = threading.Event()

    def watch() -> None:
        looks_at_end = 0
        while not ended.wait(WATCH_SECONDS):
            run = instance.get_run_by_id(run_id)
            # One look at an ended run is only ourselves about to leave; two mean that somebody else ended it.
            looks_at_end += run is None or run.is_finished
            if looks_at_end > 1 or (run is not None and run.status == dg.DagsterRunStatus.CANCELING):
                os.kill(os.getpid(), signal.SIGINT)
                return
            if on_progress is not None:
                _tell(parameters, deployment, on_progress)

    thread = threading.Thread(target=watch, name="run-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _tell(parameters: ServiceParameters, deployment: Deployment, on_progress: Callable[[Progress], None]) -> None:
    from batch_pipeline import service

    try:
        progress = service.progress(parameters, deployment)
    except StorageFailed:
        # Only a look; the run itself says what is wrong with the store.
        return
    if progress.units:
        on_progress(progress)
