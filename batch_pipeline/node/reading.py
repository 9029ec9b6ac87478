"""Opens what a unit names; a failure to read it is an error of that input, unless the store itself is down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipeline.errors import (
    AccessDenied,
    CredentialsRefused,
    InputFailed,
    ObjectNotFound,
    PreconditionFailed,
    StorageFailed,
)
from batch_pipeline.locations import ShareLink
from batch_pipeline.node.job import Unit

if TYPE_CHECKING:
    from batch_pipeline.share_links import ShareLinkReader
    from batch_pipeline.storage import Storage

_CHANGED = "the object is no longer the one that was listed"
_REST = 64 * 1024
"""So many bytes after a part are read first: most rows end there."""
LONGEST_HEADER = 16 * 1024 * 1024


@dataclass(frozen=True)
class Opened:
    """An object that is being read. `size` is the whole object's, in bytes."""

    etag: str
    size: int
    chunks: Iterator[bytes]


class Sources:
    """Reads the user's own objects and other people's share links alike. Thread-safe."""

    def __init__(self, storage: Storage, share_links: ShareLinkReader) -> None:
        self._storage = storage
        self._share_links = share_links

    @contextmanager
    def open(self, unit: Unit, start: int = 0, end: int | None = None, etag: str | None = None) -> Iterator[Opened]:
        """Bytes [start, end) of the unit's object.

        Raises InputFailed, and StorageFailed where the store itself is at fault; so does iterating over its chunks.
        """
        etag = etag or unit.etag
        with ExitStack() as stack:
            try:
                if isinstance(unit.source, ShareLink):
                    stream = stack.enter_context(self._share_links.open(unit.source, start, end))
                else:
                    size = unit.size if etag == unit.etag else None
                    stream = stack.enter_context(self._storage.open(unit.source, start, end, etag, size=size))
            except StorageFailed as error:
                raise self._blamed(unit, error) from error
            if etag is not None and stream.etag != etag:
                raise InputFailed("changed", _CHANGED)
            stop = stream.size if end is None else min(end, stream.size)
            yield Opened(stream.etag, stream.size, self._complete(unit, iter(stream), max(0, stop - start)))

    @contextmanager
    def open_part(self, unit: Unit) -> Iterator[Opened]:
        """The object from the byte before the unit's first on, as far as is asked for: its last row may go on."""
        with self.open(unit, max(0, unit.start - 1), unit.end) as opened:
            yield Opened(opened.etag, opened.size, self._with_rest(unit, opened))

    def _with_rest(self, unit: Unit, opened: Opened) -> Iterator[bytes]:
        yield from opened.chunks
        if unit.end is None:
            return
        for start, end in ((unit.end, unit.end + _REST), (unit.end + _REST, None)):
            if start < opened.size:
                with self.open(unit, start, end, opened.etag) as rest:
                    yield from rest.chunks

    def _complete(self, unit: Unit, chunks: Iterator[bytes], expected: int) -> Iterator[bytes]:
        """The chunks; a read that ends early is an error, not a short file."""
        received = 0
        try:
            for chunk in chunks:
                received += len(chunk)
                yield chunk
        except StorageFailed as error:
            raise self._blamed(unit, error) from error
        if received != expected:
            raise InputFailed("read_failed", f"the object ended after {received} of {expected} bytes")

    def _blamed(self, unit: Unit, error: StorageFailed) -> InputFailed:
        """The error of the input, where it is the input's. Raises the store's own, which is no input's fault.

        A store that does not say whether the unit's result is there is down, or does not take the credentials.
        """
        if isinstance(error, CredentialsRefused):
            raise error
        if error.transient:
            self._storage.exists(unit.result)
        return input_failure(error)

    def header(self, unit: Unit) -> bytes:
        """The first line, with its end, of the unit's object, of which the unit itself may be a later part."""
        head = b""
        with self.open(unit) as opened:
            for chunk in opened.chunks:
                head += chunk
                if b"\n" in chunk or len(head) > LONGEST_HEADER:
                    break
        line, end, _ = head.partition(b"\n")
        return line + end


def input_failure(error: StorageFailed) -> InputFailed:
    """The same failure without the name of the source, which the service's records do not hold."""
    if isinstance(error, ObjectNotFound):
        return InputFailed("not_found", "there is no such object")
    if isinstance(error, AccessDenied):
        return InputFailed("access_denied", "the store refused to let it be read")
    if isinstance(error, PreconditionFailed):
        return InputFailed("changed", _CHANGED)
    return InputFailed("read_failed", "the object could not be read to its end")
