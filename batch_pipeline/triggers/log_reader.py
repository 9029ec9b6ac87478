"""Reading the log of gathered manifests from where a look left off, over the folders that it has moved through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from batch_pipeline.locations import Location
from batch_pipeline.triggers.gathering import Gathered, GatheredLog
from batch_pipeline.triggers.looking import Requested, without_run

READ = 500_000
"""About how many lines of manifests that an earlier look wrote are read by one look."""
_OPENING = 100
"""What reading another manifest costs, in lines."""


class LogReader:
    """Reads each manifest that exists and is not remembered. For one look, by one thread.

    `number` is of the next manifest, and `folder` the one that it counts in: where the log was when the last look
    ended, and its present folder once all is read there. Until then nothing may be appended.
    """

    def __init__(self, log: GatheredLog, folder: Location | None, number: int, *, read: int = READ) -> None:
        self.number = number
        self.folder = folder or log.folder
        self.finished = False
        self._log = log
        self._left = read

    def unread(self, requested: Requested) -> Iterator[tuple[Gathered, bool]]:
        """Each with whether it has a run already; one at which the caller stops is not read.

        `finished` says whether that was all: one look reads so much, then the next one goes on.
        """
        if self.folder != self._log.folder:
            before = replace(self._log, folder=self.folder)
            yield from self._unread(before, requested)
            if self._left <= 0:
                return
            self._log.go_on_from(before, self.number)
            self.folder = self._log.folder
        yield from self._unread(self._log, requested)
        self.finished = self._left > 0

    def _unread(self, log: GatheredLog, requested: Requested) -> Iterator[tuple[Gathered, bool]]:
        for some in log.windows(self.number):
            if self._left <= 0:
                return
            without = without_run([one.arrival for one in some], requested)
            for one in some:
                yield one, one.arrival not in without
                self.number = one.number + 1
                self._left -= len(one.files) + _OPENING
