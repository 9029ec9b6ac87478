"""A store whose process dies, or whose answer is lost, at a chosen operation below one folder: on a real one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from batch_pipeline.errors import StorageFailed
from batch_pipeline.locations import Location
from batch_pipeline.storage import ObjectInfo, Storage, Stream, Writer
from batch_pipeline.storage.objects import Refusals
from batch_pipeline.storage.storage import Backend

How = Literal["dies before", "dies halfway", "dies after", "fails before", "fails after"]
Made = TypeVar("Made")


class Died(BaseException):
    """The process is dead: nothing that it still does has an effect, be it to clean up."""


@dataclass(frozen=True)
class Fate:
    """What happens at the `nth` operation (from 0) whose key, below the folder, has `place` in it.

    One that dies halfway has deleted half of what it was to (the last ones first: a store may do so), or left half of
    an object that nobody will see.
    """

    place: str
    nth: int
    how: How


class MortalStorage(Storage):
    """Storage of one process. `changed` is called after everything that changed the folder."""

    def __init__(
        self, folder: Location, fates: Sequence[Fate], changed: Callable[[], None] = lambda: None, *, allow_local: bool
    ) -> None:
        super().__init__(allow_local=allow_local)
        self.folder, self.fates, self.changed = folder, fates, changed
        self.dead = False
        self.met: Fate | None = None
        """What it came to, the first of its fates for which it was time."""
        self._seen = [0] * len(fates)
        self._guard = threading.Lock()

    def __reduce__(self) -> tuple[Callable[[bool], Storage], tuple[bool]]:
        """A process that this one starts lives on its own."""
        return _immortal, (self.allow_local,)

    def _backend(self, location: Location) -> Backend:
        return _Mortal(self, super()._backend(location))

    def do(
        self,
        location: Location,
        effect: Callable[[], Made],
        halfway: Callable[[], object] = lambda: None,
        *,
        changes: bool = True,
    ) -> Made:
        """Does one operation, unless it is the one at which this process dies, or is told that it failed."""
        how = self._how(location, changes=changes)
        if how == "dies before":
            raise Died
        if how == "dies halfway":
            halfway()
            self.changed()
            raise Died
        if how == "fails before":
            raise StorageFailed(f"{location}: injected, nothing was done")
        made = effect()
        if changes and location.key.startswith(self.folder.key):
            self.changed()
        if how == "dies after":
            raise Died
        if how == "fails after":
            raise StorageFailed(f"{location}: injected, the answer is lost")
        return made

    def _how(self, location: Location, *, changes: bool) -> How | None:
        with self._guard:
            if self.dead:
                raise Died
            below = location.key.removeprefix(self.folder.key)
            if self.met is not None or not location.key.startswith(self.folder.key):
                return None
            for number, fate in enumerate(self.fates):
                # To die at a look is the same as to die before the next change.
                if fate.place in below and (changes or fate.how.startswith("fails")):
                    self._seen[number] += 1
                    if self._seen[number] > fate.nth:
                        self.met, self.dead = fate, fate.how.startswith("dies")
                        return fate.how
            return None


class _Mortal:
    """A Backend."""

    def __init__(self, storage: MortalStorage, inner: Backend) -> None:
        self._storage, self._inner = storage, inner

    def head(self, location: Location) -> ObjectInfo:
        return self._storage.do(location, lambda: self._inner.head(location), changes=False)

    def open(
        self, location: Location, start: int, end: int | None, if_match: str | None, size: int | None = None
    ) -> Stream:
        return self._storage.do(location, lambda: self._inner.open(location, start, end, if_match, size), changes=False)

    def list(self, folder: Location, start_after: str | None, refused: Refusals | None) -> Iterator[ObjectInfo]:
        return self._storage.do(folder, lambda: self._inner.list(folder, start_after, refused), changes=False)

    def write(self, location: Location, data: bytes, if_absent: bool, if_match: str | None) -> str:
        return self._storage.do(
            location,
            lambda: self._inner.write(location, data, if_absent, if_match),
            lambda: self._inner.open_writer(location).write(data[: len(data) // 2]),
        )

    def open_writer(self, location: Location) -> Writer:
        return _MortalWriter(self._storage, location, self._inner)

    def delete(self, locations: Iterable[Location]) -> int:
        found = list(locations)
        if not found:
            return 0
        return self._storage.do(
            found[0],
            lambda: self._inner.delete(found),
            lambda: self._inner.delete(found[len(found) // 2 :]),
        )

    def compose(self, target: Location, parts: Sequence[ObjectInfo]) -> ObjectInfo:
        return self._storage.do(
            target,
            lambda: self._inner.compose(target, parts),
            lambda: self._inner.open_writer(target).write(b"half of what was to be put together"),
        )

    def drop_unfinished(self, folder: Location, is_own: Callable[[Location], bool]) -> int:
        return self._storage.do(folder, lambda: self._inner.drop_unfinished(folder, is_own))


class _MortalWriter(Writer):
    def __init__(self, storage: MortalStorage, location: Location, backend: Backend) -> None:
        self._storage, self._location = storage, location
        self._inner = storage.do(location, lambda: backend.open_writer(location))

    def _append(self, data: bytes) -> None:
        self._storage.do(
            self._location, lambda: self._inner.write(data), lambda: self._inner.write(data[: len(data) // 2])
        )

    def _complete(self) -> str:
        self._storage.do(self._location, lambda: self._inner.__exit__(None, None, None))
        return self._inner.etag

    def _abort(self) -> None:
        if not self._storage.dead:
            self._inner.__exit__(StorageFailed, None, None)


def _immortal(allow_local: bool) -> Storage:
    return Storage(allow_local=allow_local)
