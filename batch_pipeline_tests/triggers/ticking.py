"""What stands in for the daemon in the tests of triggers: it looks, makes runs by run key, and keeps the cursor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from batch_pipeline.locations import Location
from batch_pipeline.storage import ObjectInfo, Storage
from batch_pipeline.storage.connection import Connection
from batch_pipeline.storage.objects import Refusals
from batch_pipeline.storage.storage import Backend
from batch_pipeline.triggers.looking import Arrival, Look, Watch


@dataclass
class Daemon:
    """Runs exist once a run key. A tick may be lost after its runs were made, or make only some of them."""

    watch: Watch
    cursor: str | None = None
    runs: dict[str, Arrival] = field(default_factory=dict)

    def requested(self, keys: Sequence[str]) -> set[str]:
        return self.runs.keys() & set(keys)

    def tick(self, *, launch: int | None = None, keep: bool = True, using: Watch | None = None) -> Look:
        """`launch`: how many of the runs come to be; `keep`: whether the cursor is kept."""
        look = (using or self.watch).look(self.cursor, self.requested)
        assert len(look.cursor) < 300
        assert "\n" not in look.message
        assert look.message
        assert not self.requested([one.run_key for one in look.arrivals]), "handed out what has a run"
        self.runs |= {one.run_key: one for one in look.arrivals[:launch]}
        if keep:
            self.cursor = look.cursor
        return look

    def settle(self, ticks: int = 60) -> None:
        """Ticks until nothing arrives and nothing changes."""
        for _ in range(ticks):
            before = self.cursor
            if not self.tick().arrivals and self.cursor == before:
                return
        raise AssertionError("it never came to rest")


def lines(storage: Storage, manifest: Location) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in storage.read(manifest).splitlines()]


def listed(storage: Storage, arrivals: Sequence[Arrival]) -> list[tuple[str, str]]:
    """Every (source, ETag) in the manifests, in order."""
    return [(one["source"], one["etag"]) for arrival in arrivals for one in lines(storage, arrival.location)]


class Killed(Exception):
    """The process ends here."""


class DyingStorage(Storage):
    """Storage of a process that is killed at its n-th request, before or after the store has done it."""

    def __init__(self, store: Storage, requests: int, *, done: bool) -> None:
        super().__init__(allow_local=True)
        self._store = store
        self._left = requests
        self._done = done

    @property
    def connection(self) -> Connection:  # type: ignore[override]
        """The store's own, as making one takes its time."""
        return self._store.connection

    def _backend(self, location: Location) -> Backend:
        return self._store._backend(location)

    def _die(self, done: bool) -> None:
        if done == self._done:
            self._left -= 1
            if self._left < 0:
                raise Killed

    def head(self, location: Location) -> ObjectInfo:
        self._die(False)
        return super().head(location)

    def list(
        self, folder: Location, start_after: str | None = None, *, refused: Refusals | None = None
    ) -> Iterator[ObjectInfo]:
        self._die(False)
        return super().list(folder, start_after, refused=refused)

    def delete(self, locations: Any) -> int:
        self._die(False)
        count = super().delete(locations)
        self._die(True)
        return count

    def write(self, location: Location, data: bytes, **conditions: Any) -> str:
        self._die(False)
        etag = super().write(location, data, **conditions)
        self._die(True)
        return etag
