"""The process that step processes are forked from: it must have today's environment, not that of its own start."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver

_lock = threading.Lock()
_users = 0
_environment: dict[str, str] = {}


PRELOAD = ("dagster._core.executor.multiprocess", "batch_pipeline.orchestration.preload")
"""What the fork server imports before it forks a step. Dagster puts its own executor first by itself."""


@contextmanager
def current_fork_server(*, start: bool) -> Iterator[None]:
    """While this runs, step processes are forked with the environment as it is now.

    With `start` the fork server begins to import what steps need at once, beside whatever comes before the first step.

    Python keeps one fork server a process, for good; where the environment has changed since (a notebook that set
    its credentials, a second deployment), the old one is ended, unless another run still uses it.
    """
    global _users, _environment  # noqa: PLW0603  there is one fork server a process
    with _lock:
        if _users == 0 and _environment != dict(os.environ):
            forkserver._forkserver._stop()  # type: ignore[attr-defined]
            _environment = dict(os.environ)
        if start:
            forkserver.set_forkserver_preload(list(PRELOAD))
            forkserver.ensure_running()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
