"""How many rows go into one call of the model: what was measured to be quick, and fits the memory."""

from __future__ import annotations

import threading
from typing import NamedTuple

_TRIES = 8
"""Calls of each of two sizes. Of either the quickest counts."""
_WORSE = 1.02
"""No larger size is tried after one where a row takes so much more of its time than at half the size."""
_TICK = 1e-9
"""Seconds: less than any call takes, and more than nothing, which a coarse clock may say."""
_ALIKE = 1.03
"""The smallest size is kept of those where a row takes at most so much of the time that it takes at the quickest."""


class _Took(NamedTuple):
    """What the calls of a size took: how many there were, and the least seconds a row."""

    calls: int
    least: float


_NONE = _Took(0, float("inf"))


class BatchSize:
    """Grows from `floor` to `ceiling` by doubling, past sizes that are no quicker too, and then keeps the quickest.

    A size and its double are tried in turn, as what a row takes also changes with what else the machine does.
    Thread-safe. Where memory ran out, or the time limit, it is halved, for good.
    """

    def __init__(self, floor: int, ceiling: int) -> None:
        self._ceiling = ceiling
        self._smaller = min(floor, ceiling)
        self._larger = min(2 * floor, ceiling)
        self._took = dict.fromkeys((self._smaller, self._larger), _NONE)
        self._compared = {self._smaller: 1.0}
        """What a row takes at each size that is known, by what it takes at the smallest."""
        self._kept = self._smaller if self._smaller == self._larger else None
        self._lock = threading.Lock()

    @property
    def rows(self) -> int:
        """How many rows at most the next call is to have."""
        with self._lock:
            if self._kept is not None:
                return self._kept
            return min(self._took, key=lambda size: self._took[size].calls)

    def took(self, rows: int, seconds: float) -> None:
        """A call had so many rows and took so long. Calls that were not nearly full say nothing about this size."""
        with self._lock:
            if self._kept is not None or rows <= self._smaller // 2:
                return
            size = self._smaller if rows <= self._smaller else self._larger
            known = self._took[size]
            self._took[size] = _Took(known.calls + 1, min(known.least, max(seconds, _TICK) / rows))
            if all(known.calls >= _TRIES for known in self._took.values()):
                self._go_on()

    def too_many(self, rows: int) -> None:
        """A call of so many rows found no memory, or took too long."""
        with self._lock:
            self._ceiling = max(1, min(self._ceiling, rows // 2))
            if self._kept is None and self._larger > self._ceiling:
                self._keep()
            if self._kept is not None:
                self._kept = min(self._kept, self._ceiling)

    def _go_on(self) -> None:
        ratio = self._took[self._larger].least / self._took[self._smaller].least
        self._compared[self._larger] = self._compared[self._smaller] * ratio
        if ratio > _WORSE or self._larger >= self._ceiling:
            self._keep()
        else:
            self._smaller, self._larger = self._larger, min(2 * self._larger, self._ceiling)
            self._took = dict.fromkeys((self._smaller, self._larger), _NONE)

    def _keep(self) -> None:
        quickest = min(self._compared.values())
        self._kept = min(size for size, ratio in self._compared.items() if ratio <= quickest * _ALIKE)
