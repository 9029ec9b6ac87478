"""What a case found, and what was to be reached."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """One row of the table: a value of each run, and the bound that its median should keep."""

    work: str
    measure: str
    values: tuple[float, ...]
    bound: float
    at_least: bool = True
    unit: str = ""
    """Empty for a ratio."""
    ours: str = ""
    """What the ratio is made of, in words: the median of ours, and of what it is held against."""
    other: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def reached(self) -> bool:
        return self.median >= self.bound if self.at_least else self.median <= self.bound

    def share(self, value: float) -> float:
        """How far a value comes: 1 is just reached, more is better, whichever way the bound goes."""
        # A peak that shrinks where it may grow is as good as one that stays.
        value = max(value, 1e-3)
        return value / self.bound if self.at_least else self.bound / value

    def say(self, value: float) -> str:
        number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
        return f"{number} {self.unit}".rstrip()

    @property
    def reach(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g} {self.unit}".rstrip()


def compared(
    work: str, measure: str, bound: float, pairs: Sequence[tuple[float, float]], amount: int, what: str
) -> Outcome:
    """The ratio of two rates over the same amount, pair by pair, from the seconds that ours and the other took."""
    ours, other = zip(*pairs, strict=True)
    ratios = tuple(against / took for took, against in pairs)
    return Outcome(work, measure, ratios, bound, ours=_rate(amount, ours, what), other=_rate(amount, other, what))


def _rate(amount: int, seconds: Sequence[float], what: str) -> str:
    found = amount / statistics.median(seconds)
    digits = f"{found:,.0f}" if found >= 100 else f"{found:.1f}"
    return f"{digits} {what}/s"


def duration(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.1f} s"


def mebibytes(sizes: Sequence[int]) -> str:
    return f"{statistics.median(sizes) / 2**20:,.0f} MiB"
