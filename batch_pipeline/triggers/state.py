"""What a trigger remembers between looks: an immutable object in its state folder, which the short cursor names."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from batch_pipeline.errors import ObjectNotFound
from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage
from batch_pipeline.triggers.looking import Arrival
from batch_pipeline.triggers.taken import Taken

_CURSOR = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class State:
    """`handed_out`: the arrivals that are not known to have a run. `number`: of the next manifest to be written."""

    taken: Taken
    handed_out: tuple[Arrival, ...] = ()
    number: int = 0


@dataclass(frozen=True)
class StateFolder:
    """The states below one folder. A state's name is the digest of its content, and is the cursor."""

    storage: Storage
    folder: Location

    def load(self, cursor: str | None) -> State | None:
        """The state that the cursor names; None where there is no cursor, or it names none that can be read."""
        if cursor is None or not _CURSOR.fullmatch(cursor):
            return None
        try:
            data = self.storage.read(self._place(cursor))
        except ObjectNotFound:
            return None
        return _decode(data) if _name(data) == cursor else None

    def save(self, state: State, cursor: str | None) -> str:
        """Writes the state and returns the cursor for it; nothing is written where it is the one `cursor` names."""
        data = _encode(state)
        name = _name(data)
        if name != cursor:
            self.storage.write(self._place(name), data)
        return name

    def clean(self, cursor: str) -> None:
        """Removes the states older than the cursor's. A newer one may be of a look whose cursor is on its way."""
        states = [info for info in self.storage.list(self._index) if _CURSOR.fullmatch(info.location.name)]
        now = next((info.modified for info in states if info.location.name == cursor), None)
        if now is not None:
            self.storage.delete(info.location for info in states if info.modified < now)

    @property
    def _index(self) -> Location:
        return self.folder.child("index/")

    def _place(self, cursor: str) -> Location:
        return self._index.child(cursor)


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _encode(state: State) -> bytes:
    """A line of JSON, then the digests as they are."""
    header = {"number": state.number, "handed_out": [_written(arrival) for arrival in state.handed_out]}
    return orjson.dumps(header) + b"\n" + state.taken.packed


def _decode(data: bytes) -> State:
    header, _, packed = data.partition(b"\n")
    fields = orjson.loads(header)
    return State(Taken(packed), tuple(_read(one) for one in fields["handed_out"]), fields["number"])


def _written(arrival: Arrival) -> list[Any]:
    place = arrival.location
    return [place.scheme, place.bucket, place.key, arrival.etag, arrival.size, arrival.modified.isoformat()]


def _read(fields: list[Any]) -> Arrival:
    scheme, bucket, key, etag, size, modified = fields
    return Arrival(Location(bucket, key, scheme), etag, size, datetime.fromisoformat(modified))
