"""Ends calls of the model, and what else may hang, that take too long: one thread watches all of them."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, Self

from batch_pipeline.errors import InputFailed

BATCH_SECONDS = 600.0
GRACE_SECONDS = 60.0
"""A call that was told to end does so once its operator is done. One that is still there after so long never will."""
STUCK = 70
"""The exit status of a process that ended itself because a call never came back."""
_LEFT_OUT = (
    "What is finished is kept; a service that is run again goes on from there, and leaves out the input that this "
    "happens on."
)
_LONGER = "What is finished is kept. A model that needs longer to load has it by BATCH_PIPELINE_BATCH_SECONDS."


class Endable(Protocol):
    """What a call of ONNX Runtime looks at between two operators (its RunOptions)."""

    terminate: bool


@dataclass(eq=False)
class Call:
    """One that is watched."""

    options: Endable
    seconds: float
    deadline: float
    what: str
    afterwards: str
    """What comes of it where nothing ends it."""
    ended: bool = False
    """It was told to end."""


class _Deaf:
    """What nothing can end has nobody who looks."""

    terminate = False


class TimeLimit:
    """Calls of at most `seconds`. A context manager: it watches for as long as it is open.

    Where a call does not end although it was told to, `stuck` is called with what happened; by default that ends the
    process, since nothing else can end the call.
    """

    def __init__(
        self,
        seconds: float = BATCH_SECONDS,
        *,
        grace: float | None = None,
        stuck: Callable[[str], object] | None = None,
    ) -> None:
        self.seconds = seconds
        self._grace = min(seconds, GRACE_SECONDS) if grace is None else grace
        self._stuck = stuck or end_process
        self._calls: set[Call] = set()
        self._closed = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._watch, name="time-limit", daemon=True)

    def begin(self, options: Endable, part: float, what: str = "a call of the model") -> Call:
        """Watches one call, which may take that part of the limit, until it is said to be at its end."""
        return self._begin(options, self.seconds * part, what, _LEFT_OUT)

    def _begin(self, options: Endable, seconds: float, what: str, afterwards: str) -> Call:
        call = Call(options, seconds, time.monotonic() + seconds, what, afterwards)
        self._calls.add(call)
        if self._ending:
            call.ended = options.terminate = True
        return call

    def end(self, call: Call) -> None:
        self._calls.discard(call)

    @contextmanager
    def watching(self, what: str) -> Iterator[None]:
        """Watches what nothing can end. Raises InputFailed where it came back, but too late."""
        call = self.begin(_Deaf(), 1.0, what)
        try:
            yield
        finally:
            self.end(call)
        if call.ended and not self._ending:
            raise InputFailed("timed_out", f"{what} took longer than {self.seconds:g} seconds")

    @contextmanager
    def loading(self, least: float) -> Iterator[None]:
        """Watches the loading of a model, which nothing can end, for `least` seconds or the limit, if that is more.

        One that comes back, too late or not, has loaded.
        """
        call = self._begin(_Deaf(), max(self.seconds, least), "the loading of the model", _LONGER)
        try:
            yield
        finally:
            self.end(call)

    def end_all(self) -> None:
        """Tells all calls to end, those that are about to begin as well."""
        self._ending = True
        for call in self._calls.copy():
            call.ended = call.options.terminate = True

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self.seconds / 20)):
            now = time.monotonic()
            for call in self._calls.copy():
                if not call.ended and now > call.deadline:
                    call.ended = call.options.terminate = True
                elif call.ended and now > call.deadline + self._grace:
                    self._stuck(
                        f"{call.what} took longer than {call.seconds:.4g} seconds and could not be ended: "
                        f"what it is in does not come back. {call.afterwards}"
                    )
                    return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()


def end_process(what: str) -> None:
    """Ends this process at once, whatever its threads are in."""
    sys.stderr.write(f"batch-pipeline: {what} This process ends itself.\n")
    sys.stderr.flush()
    os._exit(STUCK)
