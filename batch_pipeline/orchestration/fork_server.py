"""The process that step processes are forked from: it must have today's environment, not that of its own start."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import TYPE_CHECKING

from batch_pipeline.errors import Refused

if TYPE_CHECKING:
    from batch_pipeline.deployment import Deployment

_lock = threading.Lock()
_users = 0
_environment: dict[str, str] = {}
_threads: int | None = None
_POLARS_THREADS = "POLARS_MAX_THREADS"


PRELOAD = ("dagster._core.executor.multiprocess", "batch_pipeline.orchestration.preload")
"""What the fork server imports before it forks a step. Dagster puts its own executor first by itself."""


def node_threads(deployment: Deployment, node_spec: str, node_count: int) -> int:
    """On how many threads each of the nodes is to compute, and to read."""
    from batch_pipeline.inference import threads_of

    try:
        spec = deployment.node_specs[node_spec]
    except (Refused, KeyError):
        return 1  # the first step will say so
    return threads_of(spec, min(node_count, deployment.settings.local_nodes))


@contextmanager
def current_fork_server(*, threads: int | None) -> Iterator[None]:
    """While this runs, step processes are forked with the environment as it is now.

    With `threads` the fork server begins to import what steps need at once, beside whatever comes before the first
    step. Polars asks then, once and for all, how many threads it may have in each of these.

    Python keeps one fork server a process, for good; where the environment has changed since (a notebook that set
    its credentials, a second deployment), the old one is ended, unless another run still uses it.
    """
    global _users, _environment, _threads  # noqa: PLW0603  there is one fork server a process
    with _lock:
        if _users == 0 and (_environment != dict(os.environ) or threads not in (None, _threads)):
            forkserver._forkserver._stop()  # type: ignore[attr-defined]
            _environment, _threads = dict(os.environ), threads
        if threads is not None:
            forkserver.set_forkserver_preload(list(PRELOAD))
            with _bounded(threads):
                forkserver.ensure_running()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1


@contextmanager
def _bounded(threads: int) -> Iterator[None]:
    if _POLARS_THREADS in os.environ:
        yield
        return
    os.environ[_POLARS_THREADS] = str(threads)
    try:
        yield
    finally:
        del os.environ[_POLARS_THREADS]
