"""How many rows go into one call of the model: what was measured to be quick, and fits the memory."""

from __future__ import annotations

import threading

_TRIES = 3
_BETTER = 0.97
"""A larger size is kept where a row takes at most so much of the time it took at half the size."""


class BatchSize:
    """Grows from `floor` to `ceiling` by doubling, for as long as that makes rows quicker. Thread-safe.

    Where memory ran out, or the time limit, it is halved, for good.
    """

    def __init__(self, floor: int, ceiling: int) -> None:
        self._rows = min(floor, ceiling)
        self._ceiling = ceiling
        self._settled = self._rows == ceiling
        self._tries = 0
        self._best = float("inf")
        self._before = float("inf")
        """Seconds a row: the least at this size, and at half of it."""
        self._lock = threading.Lock()

    @property
    def rows(self) -> int:
        """How many rows at most the next call is to have."""
        return self._rows

    def took(self, rows: int, seconds: float) -> None:
        """A call had so many rows and took so long. Calls that were not nearly full say nothing about this size."""
        with self._lock:
            if self._settled or rows <= self._rows // 2:
                return
            self._best = min(self._best, seconds / rows)
            self._tries += 1
            if self._tries >= _TRIES:
                self._go_on()

    def too_many(self, rows: int) -> None:
        """A call of so many rows found no memory, or took too long."""
        with self._lock:
            self._ceiling = max(1, min(self._ceiling, rows // 2))
            if self._rows >= self._ceiling:
                self._rows, self._settled = self._ceiling, True

    def _go_on(self) -> None:
        if self._best > self._before * _BETTER:
            self._rows, self._settled = self._rows // 2, True
            return
        self._before, self._best, self._tries = self._best, float("inf"), 0
        self._settled = self._rows >= self._ceiling
        self._rows = min(self._rows * 2, self._ceiling)
