"""Asking the store again for what may work the next time: bounded, with backoff and jitter, and said in the log."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from batch_pipeline.errors import StorageFailed

FIRST_SECONDS = 0.4
"""The pause before the second attempt is up to this, and doubles; all of it is random, so that nobody asks in step."""
LONGEST_SECONDS = 10.0

Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)


def persistent(ask: Callable[[], Answer], attempts: int) -> Answer:
    """What `ask` returns, tried again after a transient failure, at most so many times in all.

    Raises what the last attempt raised, and at once what no other attempt would change.
    """
    for attempt in range(1, attempts):
        try:
            return ask()
        except StorageFailed as error:
            if not error.transient:
                raise
            pause = random.uniform(0, min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** (attempt - 1)))  # noqa: S311
            _log.warning("%s: attempt %d of %d, the next in %.1f s", error.message, attempt, attempts, pause)
        time.sleep(pause)
    return ask()
