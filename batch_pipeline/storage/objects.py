"""What storage hands out: facts about an object, a stream to read one, a writer to make one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

from batch_pipeline.errors import AccessDenied, OddName
from batch_pipeline.locations import Location

CHUNK_BYTES = 8 * 1024 * 1024
"""How much of an object is in memory at a time, read or written."""


@dataclass(frozen=True)
class ObjectInfo:
    """One object as it was seen. `etag` is without quotes; `size` in bytes; `modified` in UTC."""

    location: Location
    size: int
    etag: str
    modified: datetime


Refusals = Callable[[Location, AccessDenied | OddName], None]
"""What a listing tells of a place that it may not, or can't, go into."""


class Stream:
    """An object being read: a context manager that yields its bytes once, in chunks of at most about 8 MiB.

    `size` is the whole object's, whatever range is read. Every chunk is of the version that `etag` names.
    Iterating raises StorageFailed (PreconditionFailed where the object was replaced meanwhile).
    """

    def __init__(self, size: int, etag: str, chunks: Iterator[bytes], close: Callable[[], None] = lambda: None) -> None:
        self.size = size
        self.etag = etag
        self._chunks = chunks
        self._close = close

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def read(self) -> bytes:
        """All that is left."""
        return b"".join(self._chunks)

    def close(self) -> None:
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Writer(ABC):
    """An object being written. It appears, whole, when the `with` block ends without an exception; else never.

    `etag` and `size` (bytes) are true after the block. Not for use by several threads at once.
    """

    etag: str = ""
    size: int = 0

    def write(self, data: bytes) -> None:
        """Append `data`. Raises StorageFailed."""
        self._append(data)
        self.size += len(data)

    @abstractmethod
    def _append(self, data: bytes) -> None: ...

    @abstractmethod
    def _complete(self) -> str:
        """Make the object appear and return its ETag."""

    @abstractmethod
    def _abort(self) -> None:
        """Leave nothing behind. Must not hide the error that led here."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abort()
            return
        try:
            self.etag = self._complete()
        except BaseException:
            self._abort()
            raise
