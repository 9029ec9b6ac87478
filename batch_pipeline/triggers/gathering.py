"""Files gathered into input manifests: how they are cut into batches, and the numbered log of what was gathered."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import orjson
from pydantic import TypeAdapter

from batch_pipeline.errors import ObjectNotFound, PreconditionFailed, StateFailed
from batch_pipeline.locations import Location
from batch_pipeline.manifest import parse_line
from batch_pipeline.triggers.looking import Arrival
from batch_pipeline.triggers.taken import digest
from batch_pipeline.triggers.template import SUFFIX
from batch_pipeline.triggers.written import Number, Scheme, located

if TYPE_CHECKING:
    from batch_pipeline.storage import ObjectInfo, Storage

_DIGITS = 8
_EARLIER = TypeAdapter(list[tuple[str, str, Scheme, Number]])
_AT_ONCE = 32
_BYTES_AT_ONCE = 64 * 1024 * 1024


@dataclass(frozen=True)
class Batch:
    """Files for one manifest; `full` where no other fits in."""

    files: tuple[ObjectInfo, ...]
    full: bool


def cut(files: Iterable[ObjectInfo], max_files: int, max_bytes: int | None) -> Iterator[Batch]:
    """Batches of the files in their order, only the last of which may not be full.

    None has more than `max_files`, or more than `max_bytes` unless one file alone has.
    """
    held: list[ObjectInfo] = []
    size = 0
    for info in files:
        if held and max_bytes is not None and size + info.size > max_bytes:
            yield Batch(tuple(held), True)
            held, size = [], 0
        held.append(info)
        size += info.size
        if len(held) >= max_files or (max_bytes is not None and size >= max_bytes):
            yield Batch(tuple(held), True)
            held, size = [], 0
    if held:
        yield Batch(tuple(held), False)


@dataclass(frozen=True)
class Gathered:
    """One manifest of the log: the arrival it is, its number, and the digests of the files it lists."""

    arrival: Arrival
    number: int
    files: tuple[bytes, ...]


@dataclass(frozen=True)
class GatheredLog:
    """The manifests `<name>-<number>.manifest` in a folder. Each is a commit record: written once, never changed.

    Who writes number n has read all before it, so that no two of them list the same version of a file. A log that was
    moved goes on in its new folder, where `<name>-earlier.json` says which numbers are in which others.
    """

    storage: Storage
    folder: Location
    name: str

    def windows(self, number: int) -> Iterator[list[Gathered]]:
        """The manifests from `number` on, in order, some at a time.

        Those are read side by side: at most 32, or 64 MiB unless one alone has more.
        """
        with ThreadPoolExecutor(_AT_ONCE, "manifests") as pool:
            for batch in cut(self._infos(number), _AT_ONCE, _BYTES_AT_ONCE):
                yield list(pool.map(self._read, batch.files))

    def go_on_from(self, before: GatheredLog, number: int) -> None:
        """Notes that the manifests below `number` are in another folder, and wherever that one says."""
        earlier = {**self._earlier(), **before._earlier(), before.folder: number}
        record = [[place.bucket, place.key, place.scheme, end] for place, end in earlier.items()]
        self.storage.write(self._record, orjson.dumps(record))

    def _infos(self, number: int) -> Iterator[ObjectInfo]:
        parts = [
            replace(self, folder=folder)._infos_here(number, end)
            for folder, end in self._earlier().items()
            if number < end and folder != self.folder
        ]
        return heapq.merge(*parts, self._infos_here(number), key=lambda info: info.location.name)

    def _infos_here(self, number: int, end: int | None = None) -> Iterator[ObjectInfo]:
        # Just before the manifest of that number in the order of keys, whatever others have put here.
        before = self.folder.key + f"{self.name}-{number:0{_DIGITS}d}"
        try:
            for info in self.storage.list(self.folder, start_after=before):
                found = self._number(info.location)
                beyond = not info.location.key.startswith(f"{self.folder.key}{self.name}-")
                if beyond or (found is not None and end is not None and found >= end):
                    return
                if found is not None:
                    yield info
        except ObjectNotFound:
            if end is None:
                raise
            # A bucket that is gone with what was in it.

    def _earlier(self) -> dict[Location, int]:
        """The folders of earlier manifests, each with the number below which they are."""
        try:
            data = self.storage.read(self._record)
        except ObjectNotFound:
            return {}
        try:
            found = _EARLIER.validate_json(data, strict=True)
            return {located(bucket, key, scheme): end for bucket, key, scheme, end in found}
        except ValueError:
            what = "it should say where earlier manifests are; delete it if all of them are in its folder"
            raise StateFailed(f"{self._record} is damaged: {what}") from None

    def append(self, number: int, files: Sequence[ObjectInfo]) -> Gathered | None:
        """Writes the manifest of that number; None where there is one already, which is then to be read."""
        place = self._place(number)
        try:
            self.storage.write(place, b"".join(_line(info) for info in files), if_absent=True)
        except PreconditionFailed:
            return None
        digests = tuple(digest(info.location, info.etag) for info in files)
        return Gathered(Arrival.of(self.storage.head(place)), number, digests)

    def still(self, arrival: Arrival) -> Arrival | None:
        """The manifest as it now is, None where it was deleted."""
        try:
            return Arrival.of(self.storage.head(arrival.location))
        except ObjectNotFound:
            return None

    def _read(self, info: ObjectInfo) -> Gathered:
        files = tuple(_listed(self.storage.read(info.location)))
        return Gathered(Arrival.of(info), self._number(info.location) or 0, files)

    def _number(self, location: Location) -> int | None:
        relative = location.key[len(self.folder.key) :]
        found = re.fullmatch(rf"{re.escape(self.name)}-(\d{{{_DIGITS}}}){re.escape(SUFFIX)}", relative, re.ASCII)
        return int(found[1]) if found else None

    @property
    def _record(self) -> Location:
        return self.folder.child(f"{self.name}-earlier.json")

    def _place(self, number: int) -> Location:
        return self.folder.child(f"{self.name}-{number:0{_DIGITS}d}{SUFFIX}")


def _line(info: ObjectInfo) -> bytes:
    return orjson.dumps({"source": info.location.uri, "etag": info.etag, "size": info.size}) + b"\n"


def _listed(manifest: bytes) -> Iterator[bytes]:
    """The digest of each version that a manifest lists. Other lines take nothing: the service reports them."""
    for line in manifest.split(b"\n"):
        source = parse_line(line, allow_local=True).source
        if isinstance(source, Location):
            yield digest(source, str(orjson.loads(line).get("etag")))
