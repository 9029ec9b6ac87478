"""Files gathered into input manifests: how they are cut into batches, and the numbered log of what was gathered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from batch_pipeline.errors import ObjectNotFound, PreconditionFailed
from batch_pipeline.locations import Location
from batch_pipeline.manifest import parse_line
from batch_pipeline.triggers.looking import Arrival
from batch_pipeline.triggers.taken import digest
from batch_pipeline.triggers.template import SUFFIX

if TYPE_CHECKING:
    from batch_pipeline.storage import ObjectInfo, Storage

_DIGITS = 8
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

    Who writes number n has read all before it, so that no two of them list the same version of a file.
    """

    storage: Storage
    folder: Location
    name: str

    def read(self, number: int) -> Iterator[Gathered]:
        """The manifests from `number` on, in order."""
        for some in self.windows(number):
            yield from some

    def windows(self, number: int) -> Iterator[list[Gathered]]:
        """The same, some at a time, which are read side by side: at most 32, or 64 MiB unless one alone has more."""
        with ThreadPoolExecutor(_AT_ONCE, "manifests") as pool:
            for batch in cut(self._infos(number), _AT_ONCE, _BYTES_AT_ONCE):
                yield list(pool.map(self._read, batch.files))

    def _infos(self, number: int) -> Iterator[ObjectInfo]:
        # Just before the manifest of that number in the order of keys, whatever others have put here.
        before = self.folder.key + f"{self.name}-{number:0{_DIGITS}d}"
        for info in self.storage.list(self.folder, start_after=before):
            if not info.location.key.startswith(f"{self.folder.key}{self.name}-"):
                return
            if self._number(info.location) is not None:
                yield info

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
