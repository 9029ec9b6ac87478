"""Storage that asks before each change whether it may: what a run that has lost its output folder is stopped by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from batch_pipeline.locations import Location
from batch_pipeline.storage.objects import ObjectInfo, Refusals, Stream, Writer
from batch_pipeline.storage.retries import permitted_by
from batch_pipeline.storage.storage import Backend, Storage

if TYPE_CHECKING:
    from batch_pipeline.storage.connection import Connection


class GuardedStorage(Storage):
    """Another storage, of which nothing is changed before `check` was called: what it raises passes through.

    It is called again before each request that is tried again, and before what took long to make appears.

    It can be pickled where its check can: a process that works for this one is to ask as well.
    """

    def __init__(self, inner: Storage, check: Callable[[], None]) -> None:
        super().__init__(allow_local=inner.allow_local, timeouts=inner.timeouts)
        self._inner, self._check = inner, check

    def _backend(self, location: Location) -> Backend:
        return _Guarded(self._inner._backend(location), self._check)

    @cached_property
    def connection(self) -> Connection:
        return self._inner.connection

    def __reduce__(self) -> tuple[type[GuardedStorage], tuple[Storage, Callable[[], None]]]:
        return GuardedStorage, (self._inner, self._check)


class _Guarded:
    """A Backend."""

    def __init__(self, inner: Backend, check: Callable[[], None]) -> None:
        self._inner, self._check = inner, check

    def head(self, location: Location) -> ObjectInfo:
        return self._inner.head(location)

    def open(
        self, location: Location, start: int, end: int | None, if_match: str | None, size: int | None = None
    ) -> Stream:
        return self._inner.open(location, start, end, if_match, size)

    def list(self, folder: Location, start_after: str | None, refused: Refusals | None) -> Iterator[ObjectInfo]:
        return self._inner.list(folder, start_after, refused)

    def write(self, location: Location, data: bytes, if_absent: bool, if_match: str | None) -> str:
        with _asking(self._check):
            return self._inner.write(location, data, if_absent, if_match)

    def open_writer(self, location: Location) -> Writer:
        self._check()
        return _GuardedWriter(self._inner.open_writer(location), self._check)

    def delete(self, locations: Iterable[Location]) -> int:
        with _asking(self._check):
            return self._inner.delete(locations)

    def compose(self, target: Location, parts: Sequence[ObjectInfo]) -> ObjectInfo:
        with _asking(self._check):
            return self._inner.compose(target, parts)

    def drop_unfinished(self, folder: Location, is_own: Callable[[Location], bool]) -> int:
        with _asking(self._check):
            return self._inner.drop_unfinished(folder, is_own)


@contextmanager
def _asking(check: Callable[[], None]) -> Iterator[None]:
    check()
    with permitted_by(check):
        yield


class _GuardedWriter(Writer):
    """What is appended stays invisible: only its appearing is a change."""

    def __init__(self, inner: Writer, check: Callable[[], None]) -> None:
        self._inner, self._check = inner, check

    def _append(self, data: bytes) -> None:
        self._inner._append(data)

    def _complete(self) -> str:
        with _asking(self._check):
            return self._inner._complete()

    def _abort(self) -> None:
        self._inner._abort()
