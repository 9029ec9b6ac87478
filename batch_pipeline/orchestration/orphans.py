"""A step's process must not outlive the run's: an orphan would go on computing for a run that is given up."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading

from batch_pipeline.ownership import Owner


def die_with_run(owner: Owner) -> None:
    """In a step's own process, end it as soon as the process that executes the run is gone. Else do nothing.

    It is killed, as that one was: what it finished is in storage.
    """
    parent = multiprocessing.parent_process()
    if parent is None or owner.process is None or parent.pid != owner.process.pid:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="die-with-run", daemon=True).start()
