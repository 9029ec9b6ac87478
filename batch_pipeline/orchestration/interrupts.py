"""How a signal stops a node at work: it is asked to stop, and nothing is raised in the midst of what it does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import dagster as dg


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Whether a signal has come; the block is to look at it, and is ended as interrupted once it is left.

    Dagster would raise wherever the main thread is. Where that is a callback of the garbage collector, as is likely
    after a long call into a library, Python drops the exception, and the service would run on. A second signal does
    raise, for a block that does not look.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  Python calls it so
        nonlocal asked
        if asked:
            raise dg.DagsterExecutionInterruptedError
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise dg.DagsterExecutionInterruptedError
