"""What a notification watch has in hand: the messages it received, and what they told of that has no run yet.

It is one object in storage, replaced as a whole and only over the version that was read: what it says is what counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from pydantic import BaseModel, FiniteFloat, ValidationError

from batch_pipeline.errors import ObjectNotFound, StateFailed
from batch_pipeline.locations import Location
from batch_pipeline.records import what_is_wrong
from batch_pipeline.storage import ObjectInfo, Storage
from batch_pipeline.triggers.cursor import Cursor, beside, last_name
from batch_pipeline.triggers.looking import Arrival
from batch_pipeline.triggers.taken import digest
from batch_pipeline.triggers.written import Digest, Number, Place, Version, located

_MOVED = "set `state_path` to the folder where it is now, or reset the cursor to begin anew"
_ADVICE = "delete it; what is in hand is found again in the gathered manifests, and in messages as they come again"


@dataclass(frozen=True)
class Announced:
    """An arrival that is not known to have a run, and the digests of the versions of objects that it takes."""

    arrival: Arrival
    versions: tuple[bytes, ...]


@dataclass
class Kept:
    """A message of the queue: what deletes it, and the digests of the versions that still have no run."""

    handle: str
    waits: set[bytes]


@dataclass
class Held:
    """All of it.

    `number` is of the next manifest to be written, and counts in the folder `log` (None where there is none yet).
    `watched` is what the watch was of. `files` (by digest, oldest first) are not gathered yet; `newest` is
    when the last of them came, in seconds since 1970. `announced` is oldest first. `messages` are by their id.
    """

    number: int = 0
    log: Location | None = None
    watched: str = ""
    newest: float = 0.0
    files: dict[bytes, ObjectInfo] = field(default_factory=dict)
    announced: list[Announced] = field(default_factory=list)
    messages: dict[str, Kept] = field(default_factory=dict)

    def versions(self) -> set[bytes]:
        """The digest of every version in hand."""
        return {*self.files, *(one for found in self.announced for one in found.versions)}

    def announce(self, arrival: Arrival, versions: Iterable[bytes]) -> None:
        """These versions are an arrival now; those that were files wait no more."""
        found = Announced(arrival, tuple(versions))
        self.announced.append(found)
        for one in found.versions:
            self.files.pop(one, None)

    def settle(self, versions: Iterable[bytes]) -> None:
        """These versions have a run, or need none: no message waits for them, and they are not to be gathered."""
        gone = set(versions)
        self.files = {one: info for one, info in self.files.items() if one not in gone}
        for message in self.messages.values():
            message.waits -= gone

    def replace(self, old: bytes, new: bytes, info: ObjectInfo) -> None:
        """A file was overwritten before it was gathered; what waited for the old version waits for the new one."""
        del self.files[old]
        self.files[new] = info
        for message in self.messages.values():
            if old in message.waits:
                message.waits ^= {old, new}

    @property
    def waiting(self) -> int:
        """How many messages wait for a run."""
        return sum(1 for message in self.messages.values() if message.waits)

    def finished(self) -> dict[str, str]:
        """Id and handle of each message that waits for nothing."""
        return {name: message.handle for name, message in self.messages.items() if not message.waits}


@dataclass
class HeldFolder:
    """Where it is kept: `held.json` in the watch's state folder. For one look, by one thread."""

    storage: Storage
    folder: Location
    watched: str
    found: bool = False
    """Whether there was something to go on from."""
    moved_from: Location | None = None
    """The other folder that it was found in."""
    _gone: bool = False
    _data: bytes | None = None
    _version: str | None = None

    def recall(self, text: str | None) -> Held:
        """What is in hand: of this watch in the cursor's folder, or beside it if that is another's; else what is here.

        Raises StateFailed where it can't be read, or is gone from the cursor's folder and not here.
        """
        here = self.load()
        cursor = Cursor.read(text or "")
        held = self._elsewhere(cursor.folder) if cursor and cursor.folder else None
        if not (held or here) and cursor and (self._gone or not cursor.folder):
            place = cursor.folder or self.folder
            raise StateFailed(f"{place}held.json, of which the sensor's cursor tells, is gone: {_MOVED}")
        self.found = bool(held or here)
        return replace(held or here or Held(), watched=self.watched)

    def _elsewhere(self, folder: Location) -> Held | None:
        for place in dict.fromkeys((folder, beside(folder, last_name(self.folder)))):
            if place == self.folder:
                return None
            held = HeldFolder(self.storage, place, self.watched).load()
            if held is not None and held.watched == self.watched:
                self.moved_from = place
                return held
            self._gone = self._gone or (place == folder and held is None)
        return None

    def load(self) -> Held | None:
        """What is in hand; None where there is no such object. Raises StateFailed where it can't be read."""
        try:
            with self.storage.open(self._place) as stream:
                self._data, self._version = stream.read(), stream.etag
        except ObjectNotFound:
            return None
        try:
            return _decode(self._data)
        except ValueError as error:
            why = what_is_wrong(error) if isinstance(error, ValidationError) else str(error)
            raise StateFailed(f"{self._place} is damaged ({why[:100]}): {_ADVICE}") from None

    def save(self, held: Held) -> None:
        """Replaces what was loaded. Raises PreconditionFailed where another look did so meanwhile."""
        data = _encode(held)
        if data != self._data:
            self.storage.write(self._place, data, if_absent=self._version is None, if_match=self._version)

    @property
    def _place(self) -> Location:
        return self.folder.child("held.json")


def _encode(held: Held) -> bytes:
    record = {
        "number": held.number,
        "log": held.log and [held.log.bucket, held.log.key, held.log.scheme],
        "watched": held.watched,
        "newest": held.newest,
        "files": [_written(info) for info in held.files.values()],
        "announced": [[_written(found.arrival), _hex(found.versions)] for found in held.announced],
        "messages": [[name, message.handle, _hex(sorted(message.waits))] for name, message in held.messages.items()],
    }
    return orjson.dumps(record)


class _Record(BaseModel):
    number: Number
    log: Place | None = None
    watched: str = ""
    newest: FiniteFloat
    files: list[Version]
    announced: list[tuple[Version, list[Digest]]]
    messages: list[tuple[str, str, list[Digest]]]


def _decode(data: bytes) -> Held:
    """Raises ValueError for what is none."""
    record = _Record.model_validate_json(data, strict=True)
    files = [_read(version) for version in record.files]
    return Held(
        record.number,
        located(*record.log) if record.log else None,
        record.watched,
        record.newest,
        {digest(info.location, info.etag): info for info in files},
        [Announced(Arrival.of(_read(version)), tuple(_bytes(versions))) for version, versions in record.announced],
        {name: Kept(handle, set(_bytes(waits))) for name, handle, waits in record.messages},
    )


def _written(info: ObjectInfo | Arrival) -> list[Any]:
    place = info.location
    return [place.bucket, place.key, place.scheme, info.size, info.etag, info.modified.isoformat()]


def _read(version: Version) -> ObjectInfo:
    bucket, key, scheme, size, etag, modified = version
    return ObjectInfo(located(bucket, key, scheme), size, etag, modified)


def _hex(digests: Iterable[bytes]) -> list[str]:
    return [one.hex() for one in digests]


def _bytes(digests: Iterable[str]) -> list[bytes]:
    return [bytes.fromhex(one) for one in digests]
