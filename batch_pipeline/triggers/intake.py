"""What a message means for a notification watch: which files and manifests are new, and who keeps the message."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from batch_pipeline.errors import AccessDenied, BatchPipelineError, ObjectNotFound, StorageFailed
from batch_pipeline.locations import Location
from batch_pipeline.storage import ObjectInfo, Storage
from batch_pipeline.triggers.events import NoNotification, Notification, ObjectEvent, parse_body
from batch_pipeline.triggers.held import Held, Kept
from batch_pipeline.triggers.looking import Arrival, counted, sentence
from batch_pipeline.triggers.queue import Message
from batch_pipeline.triggers.recent import Recent
from batch_pipeline.triggers.taken import digest
from batch_pipeline.triggers.template import SUFFIX

_NAMED = 3


class _LeftAlone(BatchPipelineError):
    """Within this module: why a message is left to its queue."""


class Intake:
    """Takes messages, one after the other, into what is in hand. For one look, by one thread.

    A message is kept, to be deleted later, where all that it tells of is ours. Any other is left to its queue: it comes
    back, to be taken by whom it is for, or put aside by the queue's own rules.
    """

    def __init__(
        self,
        storage: Storage,
        held: Held,
        recent: Recent,
        now: datetime,
        covers: Callable[[Location], bool],
        takes: Callable[[Location], bool],
    ) -> None:
        """`covers`: whether an object is this watch's business; `takes`: whether such a one is input."""
        self._storage, self._held, self._recent, self._now = storage, held, recent, now
        self._covers, self._takes = covers, takes
        self._versions = held.versions()
        self._places = {info.location: one for one, info in held.files.items()}
        self.kept: list[str] = []
        """The handles of the messages that were kept."""
        self.failures = 0
        """How often the store could not say what became of an object."""
        self.files = 0
        self._manifests, self._gone, self._foreign = 0, 0, 0
        self._left: list[str] = []

    def take(self, message: Message) -> None:
        """Takes all of a message, or nothing of it and leaves it. Raises StorageFailed where the past can't be read."""
        said = parse_body(message.body)
        if isinstance(said, NoNotification):
            self._left.append(f"{message.id}: {said.reason}")
            return
        try:
            versions = self._all_versions(said)
        except _LeftAlone as error:
            self._left.append(f"{message.id}: {error.message}")
            return
        waits = self._record(versions)
        if all(self._covers(event.location) for event in said.events):
            self._held.messages[message.id] = Kept(message.handle, waits)
            self.kept.append(message.handle)
        else:
            self._foreign += 1

    def said(self) -> str:
        named = "; ".join(" ".join(text.split())[:200] for text in self._left[:_NAMED])
        return sentence(
            self.files and counted(self.files, "new file"),
            self._manifests and counted(self._manifests, "new manifest"),
            self._gone and f"{counted(self._gone, 'object')} passed over: deleted since",
            self._foreign and f"{counted(self._foreign, 'message')} left alone: of objects outside the folder",
            self._left and f"{counted(len(self._left), 'message')} left to the queue's redrive policy ({named})",
        )

    def _all_versions(self, said: Notification) -> list[ObjectInfo]:
        ours = (event for event in said.events if self._covers(event.location) and event.created)
        found = (self._version(event) for event in ours if self._takes(event.location))
        return [info for info in found if info is not None]

    def _version(self, event: ObjectEvent) -> ObjectInfo | None:
        """The version that is there by now, None where the object is gone.

        The store is asked even of what the event says: it may be of a version that was overwritten since, as events
        come late and in any order, and what a service reads is the object as it is.
        """
        try:
            return self._storage.head(event.location)
        except ObjectNotFound:
            self._check_bucket(event.location)
            self._gone += 1
            return None
        except StorageFailed as error:
            self.failures += not isinstance(error, AccessDenied)
            raise _LeftAlone(error.message) from error

    def _check_bucket(self, location: Location) -> None:
        """Of an object in a bucket that it does not know, a store says the same as of one that was deleted."""
        try:
            next(self._storage.list(Location(location.bucket, location.key[: -len(location.name)])), None)
        except StorageFailed as error:
            raise _LeftAlone(error.message) from error

    def _record(self, versions: list[ObjectInfo]) -> set[bytes]:
        """Takes what is new; returns the digests of all that have no run yet."""
        found = {digest(info.location, info.etag): info for info in versions}
        known = self._recent.known([one for one in found if one not in self._versions])
        waits = found.keys() - known
        for one, info in found.items():
            if one in waits and one not in self._versions:
                self._add(one, info)
        return waits

    def _add(self, one: bytes, info: ObjectInfo) -> None:
        self._versions.add(one)
        if info.location.name.endswith(SUFFIX):
            self._manifests += 1
            self._held.announce(Arrival.of(info), [one])
            return
        self.files += 1
        self._held.newest = self._now.timestamp()
        before = self._places.get(info.location)
        self._places[info.location] = one
        if before is None:
            self._held.files[one] = info
        else:
            self._held.replace(before, one, info)
