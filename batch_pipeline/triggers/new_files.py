"""A trigger that gathers new files below a folder into input manifests, each of which makes one service."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from batch_pipeline.errors import StateFailed
from batch_pipeline.locations import Location
from batch_pipeline.storage import ObjectInfo, Storage
from batch_pipeline.triggers.clock import store_time
from batch_pipeline.triggers.gathering import Gathered, GatheredLog, cut
from batch_pipeline.triggers.log_reader import LogReader
from batch_pipeline.triggers.looking import (
    Look,
    Nameable,
    Requested,
    by_age,
    counted,
    pass_over_odd_names,
    passed_over,
    sentence,
    state_gone,
    without_run,
)
from batch_pipeline.triggers.state import Recalled, State, StateFolder
from batch_pipeline.triggers.taken import Comparison, Taken
from batch_pipeline.triggers.template import SUFFIX

_BEHIND = "manifests written before are still to be read, and nothing is gathered until then"
_HELD = 100_000
"""How many files at most are gathered by one look, unless a single manifest may have more."""


@dataclass(frozen=True)
class NewFilesWatch:
    """Gathers the new files below `folder` whose names match `pattern` (as a shell would) into `manifests`.

    Once the newest of them has been there for `settle_seconds` all are gathered; before that only what fills a
    manifest of `max_files` files or `max_bytes` bytes. `state` and `manifests` are folders of its own; the manifests
    are called `<name>-<number>.manifest`. At most `most` arrivals a look. Memory: about 1 kB a file that waits, for at
    most the larger of 100,000 and `max_files`, and 17 bytes a file that was taken and is still there.
    """

    storage: Storage
    folder: Location
    state: Location
    manifests: Location
    name: str
    settle_seconds: float
    max_files: int
    max_bytes: int | None = None
    pattern: str = "*"
    most: int = 20

    def look(self, cursor: str | None, requested: Requested) -> Look:
        """As Watch.look: first the arrivals that got no run, then manifests written by a look that was cut off.

        Raises StateFailed where what was taken can't be known.
        """
        states = StateFolder(self.storage, self.state, self.folder.uri)
        recalled = states.recall(cursor)
        if recalled.name is not None:
            states.clean(recalled.name)
        gathering = _Gathering(self, recalled, requested)
        found = gathering.gather() if gathering.catch_up() else _BEHIND
        message = sentence(recalled.said, gathering.said(), found)
        return Look(tuple(gathering.arrivals), states.save(gathering.state, recalled.name), message)

    def takes(self, location: Location) -> bool:
        """Whether a file of that place is one to gather."""
        name, uri = location.name, location.uri
        if not name or name.endswith(SUFFIX) or not fnmatchcase(name, self.pattern):
            return False
        return not uri.startswith((self.state.uri, self.manifests.uri))


class _Gathering:
    """One look of a NewFilesWatch, step by step: what is handed out, and what will be remembered."""

    def __init__(self, watch: NewFilesWatch, recalled: Recalled, requested: Requested) -> None:
        self._watch = watch
        self._requested = requested
        before = recalled.state or State(Taken())
        self._log = GatheredLog(watch.storage, watch.manifests, watch.name)
        self._reader = LogReader(self._log, before.log, before.number)
        self._gone = recalled.gone
        self._taken = before.taken
        stayed = [self._log.still(one) for one in without_run(before.handed_out, requested)]
        self.arrivals = [one for one in stayed if one is not None]
        self._again = len(self.arrivals)
        self._deleted = len(stayed) - self._again
        self._gathered = 0

    @property
    def state(self) -> State:
        return State(self._taken, tuple(self.arrivals), self._reader.number, log=self._reader.folder)

    def said(self) -> str:
        new = len(self.arrivals) - self._again
        return sentence(
            new and f"{counted(new, 'new manifest')} of {counted(self._gathered, 'file')}",
            self._again and f"{counted(self._again, 'manifest')} again, which got no run",
            passed_over(self._deleted),
        )

    def catch_up(self) -> bool:
        """Reads the manifests that exist and are not remembered; False where there are more than one look may take."""
        digests: list[bytes] = []
        for one, has_run in self._reader.unread(self._requested):
            if not has_run:
                if self._room <= 0:
                    break
                self._hand_out(one)
            digests += one.files
        self._taken = self._taken.union(digests)
        if self._gone is not None and self._reader.number == 0:
            raise StateFailed(state_gone(self._gone, self._watch.manifests))
        return self._reader.finished

    def gather(self) -> str:
        """Writes manifests of the new files that are ready; says what is left."""
        watch = self._watch
        now = store_time(watch.storage, watch.folder)
        comparison = Comparison(self._taken)
        fresh = Nameable(comparison.fresh(watch.storage.list(watch.folder, refused=pass_over_odd_names)), watch.takes)
        waiting = _Waiting(fresh, now + timedelta(seconds=watch.settle_seconds))
        most = max(watch.max_files, _HELD // watch.max_files * watch.max_files)
        candidates = heapq.nsmallest(most, waiting, key=by_age)
        self._taken = comparison.still_there
        everything = waiting.quiet_since(now, watch.settle_seconds) and fresh.count == len(candidates)
        digests: list[bytes] = []
        for batch in cut(candidates, watch.max_files, watch.max_bytes):
            if self._room <= 0 or not (batch.full or everything):
                break
            written = self._log.append(self._reader.number, batch.files)
            if written is None:  # a look that was thought dead wrote it; the next one reads it
                break
            self._reader.number += 1
            digests += written.files
            self._hand_out(written)
        self._taken = self._taken.union(digests)
        left = fresh.count - len(digests)
        return sentence(
            left and f"{counted(left, 'file')} wait to be quiet for {watch.settle_seconds:g} s, or for the next look",
            fresh.unusable and f"{counted(fresh.unusable, 'file')} passed over: no manifest can name them",
        ) or ("" if self.arrivals else f"nothing new among {counted(comparison.objects, 'object')}")

    @property
    def _room(self) -> int:
        return self._watch.most - len(self.arrivals)

    def _hand_out(self, one: Gathered) -> None:
        self.arrivals.append(one.arrival)
        self._gathered += len(one.files)


class _Waiting:
    """Files that wait, and since when there was no other.

    A time that lies further ahead than files wait is no time of arrival, and does not hold back the rest for ever.
    """

    def __init__(self, infos: Iterable[ObjectInfo], last_credible: datetime) -> None:
        self._infos = infos
        self._last_credible = last_credible
        self._newest: datetime | None = None

    def __iter__(self) -> Iterator[ObjectInfo]:
        for info in self._infos:
            if info.modified <= self._last_credible and (self._newest is None or info.modified > self._newest):
                self._newest = info.modified
            yield info

    def quiet_since(self, now: datetime, seconds: float) -> bool:
        return self._newest is None or (now - self._newest).total_seconds() >= seconds
