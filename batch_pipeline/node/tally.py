"""Counts what a node has done, and says so about once a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from batch_pipeline.node.job import Progress, UnitError, UnitResult

SECONDS = 1.0


class Tally:
    """Thread-safe. `said` is called from whichever thread counts, one at a time."""

    def __init__(self, units: int, on_progress: Callable[[Progress], None]) -> None:
        self._units = units
        self._done = self._failed = self._rows = self._failed_rows = self._read = 0
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._said = time.monotonic()

    @property
    def progress(self) -> Progress:
        with self._lock:
            return Progress(self._done, self._failed, self._units, self._rows, self._failed_rows, self._read)

    def count(self, *, read: int = 0, rows: int = 0, failed_rows: int = 0) -> None:
        """So many more bytes read and rows answered; rows count before their unit is done."""
        with self._lock:
            self._read += read
            self._rows += rows
            self._failed_rows += failed_rows

    def unit(self, outcome: UnitResult | UnitError) -> None:
        """One more unit is done. A divided CSV counts once, by its first part."""
        if outcome.part:
            return
        with self._lock:
            self._done += 1
            self._failed += isinstance(outcome, UnitError)

    def say(self) -> None:
        """Tells the progress if it is time. Called by the node's own thread."""
        now = time.monotonic()
        if now - self._said >= SECONDS:
            self._said = now
            self._on_progress(self.progress)
