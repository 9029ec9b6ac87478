"""What a trigger remembers between looks: an immutable object in its state folder, which the short cursor names.

A state is safe to go on from whether or not its cursor was kept: what it handed out is handed out again until it has a
run. So where the cursor names none of this watch, the newest will do.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import AwareDatetime, BaseModel

from batch_pipeline.errors import ObjectNotFound
from batch_pipeline.locations import Location
from batch_pipeline.records import Count
from batch_pipeline.storage import ObjectInfo, Storage
from batch_pipeline.triggers.cursor import Cursor, beside, last_name
from batch_pipeline.triggers.looking import LOST, OTHER, RESET, Arrival
from batch_pipeline.triggers.taken import Taken
from batch_pipeline.triggers.written import Number, Place, Scheme, located

_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class State:
    """`handed_out`: the arrivals that are not known to have a run. `number`: of the next manifest to be written.

    `watched`: what the watch was of. `log`: the folder of manifests that `number` counts in, None where there is none.
    """

    taken: Taken
    handed_out: tuple[Arrival, ...] = ()
    number: int = 0
    watched: str = ""
    log: Location | None = None


@dataclass(frozen=True)
class Recalled:
    """What a look goes on from: the state, its name where it is in the watch's own folder, and what is to be said."""

    state: State | None = None
    name: str | None = None
    said: str = ""
    gone: Location | None = None
    """Where the cursor's state was, if it is there no more and may have been of this watch."""


@dataclass(frozen=True)
class StateFolder:
    """The states below one folder. A state's name is the digest of its content, and is what the cursor names."""

    storage: Storage
    folder: Location
    watched: str

    def recall(self, text: str | None) -> Recalled:
        """The cursor's state, also from another folder if it is of the same watched place.

        Else, as where triggers changed their order, the newest of this watch: beside the cursor's, or here. Nothing
        where there is no cursor, or it is none: then all is to be looked at anew.
        """
        if text is None:
            return Recalled(said=RESET if self._states(self.folder) else "")
        cursor = Cursor.read(text)
        if cursor is None or not _NAME.fullmatch(cursor.name):
            return Recalled(said=LOST)
        folder = cursor.folder or self.folder
        state = self._load(folder, cursor.name)
        if state is not None and folder == self.folder:
            return Recalled(state, cursor.name)
        if state is not None and state.watched == self.watched:
            return Recalled(state)
        found = self._newest(beside(folder, last_name(self.folder))) or self._newest(self.folder)
        if found is not None:
            return found
        # A state of another trigger may have been removed by that one since.
        of_another = cursor.folder != self.folder and self._states(folder)
        return Recalled(said=OTHER) if of_another else Recalled(said=LOST, gone=folder)

    def save(self, state: State, before: str | None) -> str:
        """Writes the state and returns the cursor for it; nothing is written where it is the one named `before`."""
        data = _encode(state, self.watched)
        name = _name(data)
        if name != before:
            self.storage.write(_index(self.folder).child(name), data)
        return str(Cursor(name, self.folder))

    def clean(self, name: str) -> None:
        """Removes the states older than the named one. A newer one may be of a look whose cursor is on its way."""
        states = self._states(self.folder)
        now = next((info.modified for info in states if info.location.name == name), None)
        if now is not None:
            self.storage.delete(info.location for info in states if info.modified < now)

    def _newest(self, folder: Location) -> Recalled | None:
        """The newest state of this watch in a folder."""
        for info in sorted(self._states(folder), key=lambda info: info.modified, reverse=True):
            state = self._load(folder, info.location.name)
            if state is not None and state.watched == self.watched:
                return Recalled(state, info.location.name if folder == self.folder else None)
        return None

    def _states(self, folder: Location) -> list[ObjectInfo]:
        try:
            return [info for info in self.storage.list(_index(folder)) if _NAME.fullmatch(info.location.name)]
        except ObjectNotFound:  # a bucket that is gone
            return []

    def _load(self, folder: Location, name: str) -> State | None:
        """The state of that name; None where there is none that can be read."""
        try:
            data = self.storage.read(_index(folder).child(name))
        except ObjectNotFound:
            return None
        return _decode(data) if _name(data) == name else None


def _index(folder: Location) -> Location:
    return folder.child("index/")


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


class _Header(BaseModel):
    number: Number
    handed_out: list[tuple[Scheme, str, str, str, Count, AwareDatetime]]
    watched: str = ""
    log: Place | None = None


def _encode(state: State, watched: str) -> bytes:
    """A line of JSON, then the digests as they are."""
    header = {
        "number": state.number,
        "handed_out": [_written(arrival) for arrival in state.handed_out],
        "watched": watched,
        "log": state.log and [state.log.bucket, state.log.key, state.log.scheme],
    }
    return orjson.dumps(header) + b"\n" + state.taken.packed


def _decode(data: bytes) -> State | None:
    """None for what is no state."""
    first, _, packed = data.partition(b"\n")
    try:
        header = _Header.model_validate_json(first, strict=True)
        taken = Taken.read(packed)
        handed_out = tuple(
            Arrival(located(bucket, key, scheme), etag, size, modified)
            for scheme, bucket, key, etag, size, modified in header.handed_out
        )
        log = located(*header.log) if header.log else None
    except ValueError:
        return None
    return State(taken, handed_out, header.number, header.watched, log)


def _written(arrival: Arrival) -> list[Any]:
    place = arrival.location
    return [place.scheme, place.bucket, place.key, arrival.etag, arrival.size, arrival.modified.isoformat()]
