"""A notification watch while messages come late, twice and out of order, and looks overlap or are killed.

State and manifests are on the local disk; the queue and the objects told of are in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from batch_pipeline.errors import ObjectNotFound
from batch_pipeline.locations import Location
from batch_pipeline.storage import ObjectInfo, Storage
from batch_pipeline.triggers.cursor import Cursor
from batch_pipeline.triggers.looking import Arrival
from batch_pipeline.triggers.notifications import NotificationWatch
from batch_pipeline.triggers.queue import Message, Queue
from batch_pipeline_tests.triggers.ticking import Daemon, Killed, listed

FILES = st.sampled_from(["in/a", "in/ü %+"])
MANIFESTS = st.just("in/a.manifest")


@dataclass
class Fate:
    """The process is killed at its n-th step, if at all."""

    steps: int | None = None

    def step(self) -> None:
        if self.steps is not None:
            self.steps -= 1
            if self.steps < 0:
                raise Killed


class Objects(Storage):
    """The local disk, and objects of one bucket that are facts alone."""

    def __init__(self, fate: Fate) -> None:
        super().__init__(allow_local=True)
        self.fate = fate
        self.there: dict[Location, ObjectInfo] = {}

    def head(self, location: Location) -> ObjectInfo:
        self.fate.step()
        if location.scheme == "file":
            return super().head(location)
        if location not in self.there:
            raise ObjectNotFound(f"{location} does not exist")
        return self.there[location]

    def list(self, folder: Location, start_after: str | None = None) -> Iterator[ObjectInfo]:
        self.fate.step()
        return super().list(folder, start_after) if folder.scheme == "file" else iter(())

    def write(self, location: Location, data: bytes, **conditions: Any) -> str:
        self.fate.step()
        etag = super().write(location, data, **conditions)
        self.fate.step()
        return etag


class MemoryQueue(Queue):
    """What SQS promises, and no more: a message comes at least once, and only its last handle deletes it."""

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        self.waiting: dict[str, str] = {}
        self.received: dict[str, tuple[str, str]] = {}
        """By the handle: id and body."""
        self.deleted: dict[str, str] = {}
        self._count = 0

    def send(self, body: object) -> None:
        self._count += 1
        self.waiting[f"message-{self._count}"] = json.dumps(body)

    def receive(self) -> list[Message]:
        self.fate.step()
        found = []
        for name in list(self.waiting)[:2]:
            self._count += 1
            handle = f"handle-{self._count}"
            self.received[handle] = name, self.waiting.pop(name)
            found.append(Message(name, handle, self.received[handle][1]))
        self.fate.step()
        return found

    def hide(self, handles: Sequence[str]) -> None:
        self.fate.step()

    def delete(self, handles: Sequence[str]) -> set[str]:
        self.fate.step()
        for handle in handles:
            if handle in self.received:
                name, body = self.received.pop(handle)
                self.deleted[name] = body
        self.fate.step()
        return set(handles)

    def redeliver(self, names: Sequence[str]) -> None:
        """The visibility timeout is over; what was received is to be received anew."""
        for handle, (name, body) in list(self.received.items()):
            if name in names:
                del self.received[handle]
                self.waiting[name] = body

    @property
    def held(self) -> list[str]:
        return [name for name, _ in self.received.values()]


@dataclass(frozen=True)
class MemoryWatch(NotificationWatch):
    queue: MemoryQueue = field(kw_only=True)

    def open_queue(self) -> Queue:
        return self.queue


class Notified(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = TemporaryDirectory()
        self.fate = Fate()
        self.storage = Objects(self.fate)
        self.queue = MemoryQueue(self.fate)
        self.now = 1_800_000_000.0
        self.written = 0
        self.foreign = 0
        self.place = 0
        self.daemon = Daemon(self.watch())

    def watch(self, settle_seconds: float = 0, max_files: int = 3) -> NotificationWatch:
        mine = Location("", f"{self.root.name}/place-{self.place}/"[1:], "file")
        return MemoryWatch(
            self.storage,
            "",
            Location("bucket", "in/"),
            mine.child("state/"),
            mine.child("gathered/"),
            "new",
            settle_seconds,
            max_files,
            most=2,
            clock=lambda: self.now,
            queue=self.queue,
        )

    def write(self, key: str) -> ObjectInfo:
        self.written += 1
        location = Location("bucket", key)
        info = ObjectInfo(location, self.written, f"{self.written:032x}", datetime(2027, 1, 1, tzinfo=UTC))
        self.storage.there[location] = info
        return info

    @rule(key=FILES | MANIFESTS, times=st.integers(1, 2), bridge=st.booleans(), says_etag=st.booleans())
    def upload(self, key: str, times: int, bridge: bool, says_etag: bool) -> None:
        info = self.write(key)
        for _ in range(times):
            self.queue.send(bridged(info) if bridge else {"Records": [recorded(info, says_etag=says_etag)]})

    @rule(keys=st.lists(FILES | MANIFESTS, min_size=2, max_size=3))
    def upload_together(self, keys: list[str]) -> None:
        self.queue.send({"Records": [recorded(self.write(key)) for key in keys]})

    @rule(key=FILES | MANIFESTS)
    def remove(self, key: str) -> None:
        self.storage.there.pop(Location("bucket", key), None)

    @precondition(lambda self: self.foreign < 10)
    @rule(key=FILES | st.none())
    def tell_of_others(self, key: str | None) -> None:
        self.foreign += 1
        ours = [recorded(self.write(key))] if key else []
        self.queue.send({"Records": [recorded(self.write("elsewhere/1")), *ours]})

    @precondition(lambda self: self.foreign < 10)
    @rule()
    def send_nonsense(self) -> None:
        self.foreign += 1
        self.queue.send({"hello": 1})

    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        if self.queue.held:
            self.queue.redeliver(data.draw(st.lists(st.sampled_from(self.queue.held))))

    @rule(data=st.data())
    def deliver_though_deleted(self, data: st.DataObject) -> None:
        if self.queue.deleted:
            name = data.draw(st.sampled_from(list(self.queue.deleted)))
            self.queue.waiting[name] = self.queue.deleted.pop(name)

    @rule()
    def turn_round(self) -> None:
        self.queue.waiting = dict(reversed(self.queue.waiting.items()))

    @rule(seconds=st.sampled_from([1, 60, 86_400]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(
        launch=st.none() | st.integers(0, 2),
        keep=st.booleans(),
        settle_seconds=st.sampled_from([0, 60]),
        max_files=st.integers(1, 3),
    )
    def tick(self, launch: int | None, keep: bool, settle_seconds: float, max_files: int) -> None:
        self.daemon.tick(launch=launch, keep=keep, using=self.watch(settle_seconds, max_files))

    @rule(steps=st.integers(0, 30))
    def killed(self, steps: int) -> None:
        with self.dying(steps):
            self.daemon.tick()

    @rule(steps=st.integers(0, 30))
    def two_looks_at_once(self, steps: int) -> None:
        """The second one runs, whole, while the first one asks for runs."""
        others: list[tuple[Arrival, ...]] = []

        def requested(keys: Sequence[str]) -> set[str]:
            if not others:
                others.append(self.watch().look(self.daemon.cursor, self.daemon.requested).arrivals)
            return self.daemon.requested(keys)

        with self.dying(steps):
            others.append(self.watch().look(self.daemon.cursor, requested).arrivals)
        for arrival in (one for arrivals in others for one in arrivals):
            self.daemon.runs.setdefault(arrival.run_key, arrival)

    @contextmanager
    def dying(self, steps: int) -> Iterator[None]:
        self.fate.steps = steps
        try:
            yield
        except Killed:
            return
        finally:
            self.fate.steps = None

    @rule(place=st.integers(0, 2))
    def move_the_outputs(self, place: int) -> None:
        found = Cursor.read(self.daemon.cursor or "")
        if found and found.folder and self.storage.exists(found.folder.child("held.json")):
            self.place = place
            self.daemon.watch = self.watch()

    @property
    def arrived(self) -> bool:
        """Whether it went on since it was moved: until then what was in hand is not to be lost."""
        found = Cursor.read(self.daemon.cursor or "")
        return found is None or found.folder == self.daemon.watch.state  # type: ignore[attr-defined]

    @precondition(lambda self: self.arrived)
    @rule()
    def lose_the_state(self) -> None:
        state = self.daemon.watch.state  # type: ignore[attr-defined]
        self.storage.delete(info.location for info in self.storage.list(state))

    @precondition(lambda self: self.arrived)
    @rule(cursor=st.none() | st.just("garbage"))
    def lose_the_cursor(self, cursor: str | None) -> None:
        self.daemon.cursor = cursor

    @invariant()
    def no_version_in_two_services(self) -> None:
        taken = listed(self.storage, self.gathered)
        assert len(taken) == len(set(taken))
        for one in self.gathered:
            sources = [source for source, _ in listed(self.storage, [one])]
            assert len(sources) == len(set(sources)), "overwritten while it waited, yet listed twice"

    @invariant()
    def a_message_waits_for_its_runs(self) -> None:
        """Each version that is still there and was told of by a deleted message has a run."""
        done = self.done
        for info in self.storage.there.values():
            told = [body for body in self.queue.deleted.values() if info.etag in body]
            assert not told or (info.location.uri, info.etag) in done

    @property
    def gathered(self) -> list[Arrival]:
        return [one for one in self.daemon.runs.values() if one.location.scheme == "file"]

    @property
    def done(self) -> set[tuple[str, str]]:
        manifests = {(one.location.uri, one.etag) for one in self.daemon.runs.values()}
        return {*manifests, *listed(self.storage, self.gathered)}

    def settle(self) -> int:
        """How many arrivals there were until none was left."""
        count = 0
        while arrivals := sum(len(self.daemon.tick().arrivals) for _ in range(3)):
            count += arrivals
        return count

    def teardown(self) -> None:
        try:
            self.settle()
            self.queue.redeliver(self.queue.held)
            while self.settle():
                self.queue.redeliver(self.queue.held)
            assert len(self.queue.held) + len(self.queue.waiting) == self.foreign
            ours = {info for info in self.storage.there.values() if info.location.key.startswith("in/")}
            assert {(info.location.uri, info.etag) for info in ours} <= self.done, "missed"
            self.no_version_in_two_services()
        finally:
            self.root.cleanup()


def recorded(info: ObjectInfo, *, says_etag: bool = True) -> dict[str, Any]:
    from urllib.parse import quote_plus

    found = {"key": quote_plus(info.location.key), "size": info.size, **({"eTag": info.etag} if says_etag else {})}
    return {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "bucket"}, "object": found}}


def bridged(info: ObjectInfo) -> dict[str, Any]:
    found = {"key": info.location.key, "size": info.size, "etag": info.etag}
    detail = {"bucket": {"name": "bucket"}, "object": found}
    return {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}


def test_none_is_missed_and_none_taken_twice() -> None:
    run_state_machine_as_test(Notified, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))
