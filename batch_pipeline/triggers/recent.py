"""Which versions of objects a notification watch took lately: an object of digests a day, old ones removed."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import cached_property

from batch_pipeline.errors import ObjectNotFound, StateFailed
from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage
from batch_pipeline.triggers.taken import Taken

REMEMBERED = timedelta(days=15)
"""A queue keeps a message for 14 days at most, so nothing that was taken before can come again."""


class Recent:
    """The digests of REMEMBERED, below one folder. For one look, by one thread; read when first asked."""

    def __init__(self, storage: Storage, folder: Location, now: datetime) -> None:
        self._storage = storage
        self._folder = folder
        self._now = now
        self._added = Taken()

    def known(self, digests: list[bytes]) -> set[bytes]:
        """Those of the digests that were taken."""
        if not digests:
            return set()
        return {
            one
            for taken in (*self._days, self._added)
            for one, known in zip(digests, taken.holds(digests), strict=True)
            if known
        }

    def add(self, digests: Collection[bytes]) -> None:
        """Remembers these, at once. Raises PreconditionFailed where another look adds at the same moment."""
        if not digests:
            return
        today = self._folder.child(f"{self._now:%Y-%m-%d}")
        try:
            with self._storage.open(today) as stream:
                before, version = _read(today, stream.read()), stream.etag
        except ObjectNotFound:
            self._forget()
            self._storage.write(today, Taken().union(digests).packed, if_absent=True)
        else:
            self._storage.write(today, before.union(digests).packed, if_match=version)
        self._added = self._added.union(digests)

    def adopt(self, folder: Location) -> None:
        """Remembers what was remembered in another folder, under the days of then."""
        for there in self._listed(folder):
            here = self._folder.child(there.name)
            ours = self._storage.read(here) if self._storage.exists(here) else b""
            theirs = _read(there, self._storage.read(there))
            self._storage.write(here, _read(here, ours).merged(theirs).packed)

    def _forget(self) -> None:
        oldest = self._oldest
        self._storage.delete(info.location for info in self._storage.list(self._folder) if info.location.name < oldest)

    @cached_property
    def _days(self) -> list[Taken]:
        return [_read(location, self._storage.read(location)) for location in self._listed(self._folder)]

    def _listed(self, folder: Location) -> list[Location]:
        return [info.location for info in self._storage.list(folder) if info.location.name >= self._oldest]

    @property
    def _oldest(self) -> str:
        return f"{self._now - REMEMBERED:%Y-%m-%d}"


def _read(place: Location, packed: bytes) -> Taken:
    try:
        return Taken.read(packed)
    except ValueError as error:
        what = "delete it; a message of that day that comes again may then be taken again"
        raise StateFailed(f"{place} is damaged ({error}): {what}") from error
