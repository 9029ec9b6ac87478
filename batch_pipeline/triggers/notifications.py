"""A trigger on a queue of bucket notifications: for buckets too large to list, what new_files.py does for others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cached_property

from batch_pipeline.errors import PreconditionFailed
from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage
from batch_pipeline.triggers.cursor import Cursor
from batch_pipeline.triggers.gathering import GatheredLog, cut
from batch_pipeline.triggers.held import Announced, HeldFolder
from batch_pipeline.triggers.intake import Intake
from batch_pipeline.triggers.log_reader import LogReader
from batch_pipeline.triggers.looking import Arrival, Look, Requested, counted, passed_over, sentence, without_run
from batch_pipeline.triggers.queue import Message, Queue
from batch_pipeline.triggers.recent import Recent
from batch_pipeline.triggers.template import SUFFIX

_RECEIVES = 20
_FAILURES = 3
"""After so many objects of which the store can't tell anything a look receives no more."""
_DELETED = 1000
"""How many messages one look deletes at most: several times what it receives."""
_KEPT = 10_000
"""With so many messages waiting for a run no more are received; a queue lets 120,000 be in hand, some only 20,000."""

_OTHER = "another look is at work; what this one met is met again by a later one"
_LOST = "what was in hand is lost, so the manifests gathered before are read anew, and messages come again"


@dataclass(frozen=True)
class NotificationWatch:
    """Takes what a queue tells of the objects below `folder` (None: of every object).

    A `*.manifest` is an arrival of its own. Other files whose names match `pattern` (as a shell would) are gathered
    into `manifests`, as `<name>-<number>.manifest`, once none has come for `settle_seconds`; before that only what
    fills a manifest of `max_files` files (of 10,000 messages at most) or `max_bytes` bytes. Nothing below `state`,
    `manifests` and `outputs` is input. At most `most` arrivals a look.

    A message is deleted by the first look that finds runs for all it tells of, or finds that it tells of nothing to do;
    until then it is noted in `state`, and hidden in the queue. One that is no notification, or also tells of objects
    outside `folder`, is left to the queue.
    """

    storage: Storage
    queue_url: str
    folder: Location | None
    state: Location
    manifests: Location
    name: str
    settle_seconds: float
    max_files: int
    max_bytes: int | None = None
    pattern: str = "*"
    outputs: tuple[Location, ...] = ()
    most: int = 20
    wait_seconds: int = 1
    """How long an empty queue is waited for."""
    clock: Callable[[], float] = time.time
    """The time in seconds since 1970."""

    def look(self, cursor: str | None, requested: Requested) -> Look:
        """As Watch.look. What it needs to know is in the state folder, which the cursor names; the rest is for people.

        Raises QueueFailed where the queue fails, StateFailed where what is in hand can't be found or read.
        """
        try:
            looking = _Looking(self, cursor, requested)
            looking.look()
        except PreconditionFailed:
            return Look((), cursor or str(Cursor("0", self.state)), _OTHER)
        lost = cursor is not None and not looking.remembered
        message = sentence(lost and _LOST, looking.said())
        return Look(looking.arrivals, str(Cursor(str(looking.number), self.state)), message or "no new messages")

    def covers(self, location: Location) -> bool:
        """Whether an object of that place is this watch's business."""
        return self.folder is None or location.uri.startswith(self.folder.uri)

    def takes(self, location: Location) -> bool:
        """Whether an object of that place is input."""
        if not location.name or location.uri.startswith(tuple(one.uri for one in self._never)):
            return False
        return location.name.endswith(SUFFIX) or fnmatchcase(location.name, self.pattern)

    def open_queue(self) -> Queue:
        return Queue(self.storage.connection, self.queue_url, self.wait_seconds)

    @property
    def watched(self) -> str:
        """What tells this watch from others."""
        return f"{self.queue_url} {self.folder.uri if self.folder else ''}"

    @property
    def _never(self) -> tuple[Location, ...]:
        return (self.state, self.manifests, *self.outputs)


class _Looking:
    """One look of a NotificationWatch, step by step.

    Its order is what makes it safe to be cut off anywhere: a version is remembered as taken before a message that tells
    of it is deleted, a manifest is written before it is noted, and all is noted before it is handed out.
    """

    def __init__(self, watch: NotificationWatch, cursor: str | None, requested: Requested) -> None:
        self._watch, self._requested = watch, requested
        self._now = datetime.fromtimestamp(watch.clock(), UTC)
        self._queue = watch.open_queue()
        self._log = GatheredLog(watch.storage, watch.manifests, watch.name)
        self._recent = Recent(watch.storage, _taken(watch.state), self._now)
        self._folder = HeldFolder(watch.storage, watch.state, watch.watched)
        self._held = self._folder.recall(cursor)
        self._reader = LogReader(self._log, self._held.log, self._held.number)
        self._more = True
        self.arrivals: tuple[Arrival, ...] = ()
        self._again, self._dropped, self._deleted, self._gathered = 0, 0, 0, 0

    @cached_property
    def _intake(self) -> Intake:
        """Made once all that was taken before is in hand."""
        watch = self._watch
        return Intake(watch.storage, self._held, self._recent, self._now, watch.covers, watch.takes)

    def look(self) -> None:
        if self._folder.moved_from is not None:
            self._recent.adopt(_taken(self._folder.moved_from))
        self._confirm()
        if self._catch_up():
            self._receive()
            self._gather()
        self._delete()
        self._folder.save(self._held)
        handles = {message.handle for message in self._held.messages.values()}
        self._queue.hide([one for one in self._intake.kept if one in handles])
        handed_out = dict.fromkeys(found.arrival for found in self._held.announced[: self._watch.most])
        self.arrivals = tuple(without_run(list(handed_out), self._requested))

    @property
    def remembered(self) -> bool:
        """Whether there was anything to go on from."""
        return self._folder.found

    @property
    def number(self) -> int:
        return self._held.number

    def said(self) -> str:
        """One line for people."""
        files, later = len(self._held.files), len(self._held.announced) - self._watch.most
        return sentence(
            self._intake.said(),
            self._gathered and f"{counted(self._gathered, 'file')} gathered",
            self._again and f"{counted(self._again, 'manifest')} again, which got no run",
            passed_over(self._dropped),
            files and f"{counted(files, 'file')} wait to be quiet for {self._watch.settle_seconds:g} s, or for more",
            later > 0 and f"{counted(later, 'manifest')} wait for the next look",
            self._deleted and f"{counted(self._deleted, 'message')} deleted",
        )

    def _confirm(self) -> None:
        """Settles what was handed out and has a run by now, or is gone; the rest is handed out as it now is."""
        handed_out = self._held.announced[: self._watch.most]
        without = without_run([found.arrival for found in handed_out], self._requested)
        settled: list[bytes] = []
        left: list[Announced] = []
        for found in handed_out:
            still = self._log.still(found.arrival) if found.arrival in without else None
            if still is None:
                settled += found.versions
                self._dropped += found.arrival in without
            else:
                left.append(Announced(still, found.versions))
        self._again = len(left)
        self._held.announced[: self._watch.most] = left
        self._settle(settled)

    def _catch_up(self) -> bool:
        """Reads the manifests that exist and are not noted; False where there are more than one look may read."""
        settled: list[bytes] = []
        for one, has_run in self._reader.unread(self._requested):
            if has_run:
                settled += one.files
            else:
                self._held.announce(one.arrival, one.files)
        self._held.number, self._held.log = self._reader.number, self._reader.folder
        self._settle(settled)
        return self._reader.finished

    def _receive(self) -> None:
        for message in self._messages():
            self._intake.take(message)
            if self._intake.failures >= _FAILURES:
                break

    def _messages(self) -> Iterator[Message]:
        for _ in range(_RECEIVES):
            if self._held.waiting >= _KEPT:
                return
            messages = self._queue.receive()
            if not messages:
                self._more = False
                return
            yield from messages

    def _gather(self) -> None:
        """Writes manifests of the files that are ready. Quiet is a look at the queue's end, too."""
        watch, held = self._watch, self._held
        settling = 0 <= self._now.timestamp() - held.newest < watch.settle_seconds
        quiet = not settling and not (self._more and self._intake.files)
        everything = quiet or held.waiting >= _KEPT
        for batch in cut(list(held.files.values()), watch.max_files, watch.max_bytes):
            if len(held.announced) >= watch.most or not (batch.full or everything):
                break
            written = self._log.append(held.number, batch.files)
            if written is None:  # a look at work at the same time wrote it; the next one reads it
                break
            held.number += 1
            held.announce(written.arrival, written.files)
            self._gathered += len(written.files)

    def _delete(self) -> None:
        finished = dict(list(self._held.finished().items())[:_DELETED])
        gone = self._queue.delete(list(finished.values()))
        for name, handle in finished.items():
            if handle in gone:
                del self._held.messages[name]
                self._deleted += 1

    def _settle(self, versions: list[bytes]) -> None:
        self._recent.add(versions)
        self._held.settle(versions)


def _taken(state: Location) -> Location:
    return state.child("taken/")
