"""One object made of many inside the store: what is copied by the store, and what little passes through here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from batch_pipeline.locations import Location
from batch_pipeline.storage.objects import ObjectInfo, Stream
from batch_pipeline.storage.uploads import Upload

MIN_PART = 5 * 1024 * 1024
"""Every part but an upload's last has at least as many bytes: S3's rule."""
_MAX_COPY = 1024 * 1024 * 1024
_MAX_PARTS = 10_000
_THREADS = 8


@dataclass(frozen=True)
class Slice:
    """Bytes [start, end) of one object."""

    part: ObjectInfo
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


Piece = tuple[Slice, ...]
"""One part of the upload: several slices, or one under 5 MiB, are read and sent; one larger is copied."""


class Bucketed(Protocol):
    """What composing needs of the buckets."""

    def head(self, location: Location) -> ObjectInfo: ...
    def open(self, location: Location, start: int, end: int | None, if_match: str | None) -> Stream: ...
    def write(self, location: Location, data: bytes, if_absent: bool, if_match: str | None) -> str: ...
    def delete(self, locations: Sequence[Location]) -> int: ...
    def start_upload(self, location: Location) -> Upload: ...


def plan(parts: Sequence[ObjectInfo]) -> Iterator[Piece]:
    """Divide the parts' bytes into pieces, each of at least 5 MiB but the last; large parts are left whole."""
    held: list[Slice] = []
    size = 0
    for part in parts:
        start = min(part.size, MIN_PART - size) if held or part.size < MIN_PART else 0
        if start:
            held.append(Slice(part, 0, start))
            size += start
        if size >= MIN_PART:
            yield tuple(held)
            held, size = [], 0
        rest = part.size - start
        if rest >= MIN_PART:
            yield from _copies(part, start)
        elif rest:
            held, size = [Slice(part, start, part.size)], rest
    if held:
        yield tuple(held)


def _copies(part: ObjectInfo, start: int) -> Iterator[Piece]:
    """One copy, or several of equal size where it is more than a store copies at once."""
    count = -(-(part.size - start) // _MAX_COPY)
    step = -(-(part.size - start) // count)
    for begin in range(start, part.size, step):
        yield (Slice(part, begin, min(begin + step, part.size)),)


def compose(buckets: Bucketed, target: Location, parts: Sequence[ObjectInfo]) -> ObjectInfo:
    """Make `target` of the parts' bytes. Nothing is left behind on failure."""
    pieces = list(plan(parts))
    if len(pieces) > _MAX_PARTS:
        return _compose_in_groups(buckets, target, parts)
    with ThreadPoolExecutor(_THREADS, "compose") as pool:
        if not pieces or (len(pieces) == 1 and not _is_copied(pieces[0])):
            buckets.write(target, _gather(buckets, pieces[0], pool) if pieces else b"", False, None)
            return buckets.head(target)
        upload = buckets.start_upload(target)
        try:
            _send(buckets, upload, pieces, pool)
            upload.complete()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            upload.abort()
            raise
    return buckets.head(target)


def _send(buckets: Bucketed, upload: Upload, pieces: Sequence[Piece], pool: ThreadPoolExecutor) -> None:
    """Copies run side by side; what passes through here does so one piece (under 10 MiB) at a time."""
    copies = []
    for number, piece in enumerate(pieces, 1):
        if _is_copied(piece):
            only = piece[0]
            copies.append(pool.submit(upload.copy, only.part, only.start, only.end, number))
        else:
            upload.add(_gather(buckets, piece, pool), number)
    for copy in copies:
        copy.result()


def _is_copied(piece: Piece) -> bool:
    return len(piece) == 1 and piece[0].size >= MIN_PART


def _gather(buckets: Bucketed, piece: Piece, pool: ThreadPoolExecutor) -> bytes:
    def read(part: Slice) -> bytes:
        with buckets.open(part.part.location, part.start, part.end, part.part.etag) as stream:
            return stream.read()

    return b"".join(pool.map(read, piece))


def _compose_in_groups(buckets: Bucketed, target: Location, parts: Sequence[ObjectInfo]) -> ObjectInfo:
    """More pieces than an upload may have: compose groups beside the first part, then those."""
    size = _MAX_PARTS // 4
    groups = [parts[start : start + size] for start in range(0, len(parts), size)]
    first = parts[0].location
    composed: list[ObjectInfo] = []
    try:
        for number, group in enumerate(groups):
            place = Location(first.bucket, f"{first.key}.composed-{number}")
            composed.append(compose(buckets, place, group))
        return compose(buckets, target, composed)
    finally:
        buckets.delete([info.location for info in composed])
