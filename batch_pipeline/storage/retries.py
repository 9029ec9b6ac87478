"""Asking the store again for what may work the next time: bounded, with backoff and jitter, and said in the log."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from batch_pipeline.errors import StorageFailed

FIRST_SECONDS = 0.4
"""The pause before the second attempt is up to this, and doubles; all of it is random, so that nobody asks in step."""
LONGEST_SECONDS = 10.0

Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)
_permission: ContextVar[Callable[[], None] | None] = ContextVar("permission", default=None)


@contextmanager
def permitted_by(check: Callable[[], None] | None) -> Iterator[None]:
    """Has `check`, which raises where nothing may be changed any more, called before each request of this thread in
    the block: one that is tried again may come much later than the block began."""
    token = _permission.set(check)
    try:
        yield
    finally:
        _permission.reset(token)


def check_permission() -> None:
    """Raises what the check of `permitted_by` raises; nothing where there is none."""
    check = _permission.get()
    if check is not None:
        with permitted_by(None):  # what it asks the store itself
            check()


def persistent(ask: Callable[[], Answer], attempts: int) -> Answer:
    """What `ask` returns, tried again after a transient failure, at most so many times in all.

    Raises what the last attempt raised, and at once what no other attempt would change.
    """
    for attempt in range(1, attempts):
        try:
            check_permission()
            return ask()
        except StorageFailed as error:
            if not error.transient:
                raise
            seconds = pause(attempt)
            _log.warning("%s: attempt %d of %d, the next in %.1f s", error.message, attempt, attempts, seconds)
        time.sleep(seconds)
    check_permission()
    return ask()


def pause(attempt: int) -> float:
    """Seconds between that attempt, from 1, and the next."""
    return random.uniform(0, min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** (attempt - 1)))  # noqa: S311
