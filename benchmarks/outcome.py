"""What a case found, and what was to be reached."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

FAR = 10.0


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
        """How far a value comes: 1 is just reached, more is better, whichever way the bound goes; at most `FAR`."""
        if self.at_least:
            return min(FAR, value / self.bound)
        return FAR if value <= self.bound / FAR else self.bound / value

    def say(self, value: float) -> str:
        number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
        return f"{number} {self.unit}".rstrip()

    @property
    def reach(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g} {self.unit}".rstrip()


@dataclass(frozen=True)
class Work:
    """What one side took for an amount of work, in one run. None where it can't be told from the rest."""

    seconds: float
    cpu: float | None = None
    peak: int | None = None
    """Bytes."""


Pairs = Sequence[tuple[Work, Work]]
"""Ours and the other, run by run."""


def compared(work: str, measure: str, bound: float, pairs: Pairs, amount: int, what: str) -> Outcome:
    """The ratio of two rates over the same amount, pair by pair."""
    ratios = tuple(other.seconds / ours.seconds for ours, other in pairs)
    ours, other = (_words(side, amount, what) for side in zip(*pairs, strict=True))
    return Outcome(work, measure, ratios, bound, ours=ours, other=other)


def _words(works: Sequence[Work], amount: int, what: str) -> str:
    """The medians of one side: `412,000 rows/s, 4.1 s of CPU, 350 MiB`."""
    rate = amount / statistics.median(work.seconds for work in works)
    words = [f"{rate:,.0f} {what}/s" if rate >= 100 else f"{rate:.1f} {what}/s"]
    if cpu := [work.cpu for work in works if work.cpu is not None]:
        words.append(f"{statistics.median(cpu):.1f} s of CPU")
    if peaks := [work.peak for work in works if work.peak is not None]:
        words.append(mebibytes(peaks))
    return ", ".join(words)


def duration(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.1f} s"


def mebibytes(sizes: Sequence[int]) -> str:
    return f"{statistics.median(sizes) / 2**20:,.0f} MiB"
