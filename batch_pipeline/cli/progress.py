"""The progress of a service that is waited for: one live line on standard error, where that is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batch_pipeline.node.job import Progress


@contextmanager
def live_progress() -> Iterator[Callable[[Progress], None] | None]:
    """A function to tell how far the service is, from any thread; None where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        TextColumn("{task.fields[counts]}"),
        # On a narrow terminal the bar gives way, not the times.
        TimeElapsedColumn(table_column=Column(min_width=7)),
        TimeRemainingColumn(table_column=Column(min_width=7)),
    )
    rate = Rate()
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None, counts="")

        def show(progress: Progress) -> None:
            bar.update(
                task,
                description="running",
                total=progress.units or None,
                completed=progress.done,
                counts=counts(progress, rate.of(progress)),
            )

        yield show


class Rate:
    """Rows a second (inputs, where there are no rows) since the first time it was asked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, int, int] | None = None

    def of(self, progress: Progress) -> str:
        now, rows, inputs = self._clock(), progress.rows, progress.done
        if self._first is None or inputs < self._first[2] or rows < self._first[1]:
            # Counts that fall were those of an earlier attempt.
            self._first = (now, rows, inputs)
        began, first_rows, first_inputs = self._first
        if now > began and rows > first_rows:
            return f"{(rows - first_rows) / (now - began):,.0f} rows/s"
        if now > began and inputs > first_inputs:
            return f"{(inputs - first_inputs) / (now - began):,.1f} inputs/s"
        return ""


def counts(progress: Progress, rate: str = "") -> str:
    """`3/10 inputs (1 failed), 1,234 rows (5 failed), 1,000 rows/s`."""
    parts = [f"{progress.done}/{progress.units} inputs{_failed(progress.failed)}"]
    if progress.rows:
        parts.append(f"{progress.rows:,} rows{_failed(progress.failed_rows)}")
    return ", ".join([*parts, *([rate] if rate else [])])


def _failed(count: int) -> str:
    return f" ({count:,} failed)" if count else ""
