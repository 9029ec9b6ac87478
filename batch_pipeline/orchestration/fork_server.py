"""The process that step processes are forked from: it must have today's environment, not that of its own start."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, util
from pathlib import Path
from typing import Any

_lock = threading.Lock()
_users = 0
_ours: int | None = None
_environment: dict[str, str] = {}


PRELOAD = ("dagster._core.executor.multiprocess", "batch_pipeline.orchestration.preload")
"""What the fork server imports before it forks a step. Dagster puts its own executor first by itself."""


@contextmanager
def current_fork_server() -> Iterator[None]:
    """While this runs, step processes are forked with the environment as it is now.

    It begins to import what steps need at once, beside whatever comes before the first step.

    Python keeps one fork server a process, for good; where the environment has changed since (a notebook that set
    its credentials, a second deployment), the old one is left to end, unless another run still uses it.
    """
    global _users, _environment, _ours  # noqa: PLW0603  there is one fork server a process
    with _lock:
        if _users == 0 and _environment != dict(os.environ):
            _leave()
            _environment = dict(os.environ)
        forkserver.set_forkserver_preload(list(PRELOAD))
        forkserver.ensure_running()
        _ours = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1


def _leave() -> None:
    """As ForkServer._stop, but that nobody waits: a server ends only once all that it has forked did, and among these
    may be processes of the caller's own, such as those of a pool. One that is not ours is left as it is.
    """
    server: Any = forkserver._forkserver
    helpers: Any = util
    with server._lock:
        pid, address = server._forkserver_pid, server._forkserver_address
        if pid is None:
            return
        if pid == _ours:
            os.close(server._forkserver_alive_fd)
            threading.Thread(target=os.waitpid, args=(pid, 0), name="fork-server", daemon=True).start()
            if not helpers.is_abstract_socket_namespace(address):
                Path(address).unlink()
        server._forkserver_alive_fd = server._forkserver_pid = server._forkserver_address = None
