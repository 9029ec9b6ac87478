"""Whatever bytes stand where a trigger remembers things: its look goes on, or fails by an error that names them."""

from __future__ import annotations

import hashlib
import traceback
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipeline.errors import StateFailed
from batch_pipeline.locations import Location
from batch_pipeline.orchestration.model_sensor import Seen
from batch_pipeline.orchestration.requests import Position
from batch_pipeline.storage import Storage
from batch_pipeline.triggers.clock import store_time
from batch_pipeline.triggers.cursor import Cursor
from batch_pipeline.triggers.held import HeldFolder
from batch_pipeline.triggers.looking import Arrival
from batch_pipeline.triggers.new_files import NewFilesWatch
from batch_pipeline.triggers.recent import Recent
from batch_pipeline.triggers.taken import digest
from batch_pipeline_tests.faults.fuzzing import bounded_memory, damaged, ends, examples
from batch_pipeline_tests.triggers.ticking import Daemon

WORDS = [
    *rb'" \ { } [ ] : , null true -1 0.5 NaN 1e400 "number" "s3" "2024-01-02" 1700000000'.split(),
    *(b"\n", b'"newest": "nan", ', b'"log": ["a"], ', b"\x00", b"\xff" * 16),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("triggers")


class Watched:
    """A folder of files of which some were gathered, and have no run yet."""

    def __init__(self, root: Path) -> None:
        self.storage = Storage(allow_local=True)
        self.folder = Location("", f"{root}/"[1:], "file")
        self.watch = NewFilesWatch(
            self.storage,
            self.folder.child("drop/"),
            self.folder.child("state/"),
            self.folder.child("gathered/"),
            "flowers",
            settle_seconds=0,
            max_files=2,
        )
        for number in range(5):
            self.storage.write(self.folder.child(f"drop/{number}.csv"), b"1\n")
        self.daemon = Daemon(self.watch)
        self.daemon.tick(launch=1)
        cursor = Cursor.read(self.daemon.cursor or "")
        assert cursor is not None
        self.index = self.folder.child("state/index/")
        self.state = self.storage.read(self.index.child(cursor.name))

    def keep(self, state: bytes) -> str:
        """Under the name that such a state has; the cursor for it."""
        self.storage.delete(info.location for info in self.storage.list(self.index))
        name = hashlib.sha256(state).hexdigest()[:32]
        self.storage.write(self.index.child(name), state)
        return str(Cursor(name, self.folder.child("state/")))


@pytest.fixture(scope="module")
def watched(root: Path) -> Watched:
    return Watched(root)


@examples(150, share=0.3)
@given(data=st.data())
def test_states(watched: Watched, data: st.DataObject) -> None:
    cursor = watched.keep(data.draw(damaged([watched.state], WORDS)))
    with ends(), bounded_memory(1500):
        try:
            look = watched.watch.look(cursor, lambda _: ())
        except StateFailed as error:
            assert str(watched.folder) in error.message  # noqa: PT017
        else:
            assert all(isinstance(one, Arrival) and one.run_key and one.occasion for one in look.arrivals)
            watched.watch.look(look.cursor, lambda _: ())


@pytest.mark.parametrize("key", ["a/" + "t" * 300, "a//b", "../b", "a\0b", "t" * 5000])
def test_names_that_nothing_can_have(watched: Watched, key: str) -> None:
    one = [["file", "", key, "e", 1, "2024-01-02T03:04:05+00:00"]]
    state = orjson.dumps({"number": 1, "handed_out": one, "watched": f"{watched.folder}drop/"}) + b"\n"
    assert watched.watch.look(watched.keep(state), lambda _: ()).arrivals, "as if it were not there"

    place = watched.folder.child("gathered/flowers-earlier.json")
    watched.storage.write(place, orjson.dumps([["", f"{key}/", "file", 3]]))
    with pytest.raises(StateFailed, match="damaged"):
        watched.watch.look(watched.daemon.cursor, lambda _: ())
    watched.storage.delete([place])

    held = watched.folder.child("held/")
    record = {"number": 1, "newest": 0.0, "files": [], "announced": [], "messages": [], "log": ["", key, "file"]}
    watched.storage.write(held.child("held.json"), orjson.dumps(record))
    with pytest.raises(StateFailed, match="there can be no object of that name"):
        HeldFolder(watched.storage, held, "s3://b/in/").recall(None)


@examples(150, share=0.3)
@given(data=st.data())
def test_where_earlier_manifests_are(watched: Watched, data: st.DataObject) -> None:
    place = watched.folder.child("gathered/flowers-earlier.json")
    seed = b'[["", "tmp/x/", "file", 3], ["", "tmp/y/", "file", 7]]'
    watched.storage.write(place, data.draw(damaged([seed, b"[]"], WORDS)))
    with ends():
        try:
            watched.watch.look(watched.daemon.cursor, lambda _: ())
        except StateFailed as error:
            assert str(place) in error.message  # noqa: PT017
        finally:
            watched.storage.delete([place])


@examples(150, share=0.3)
@given(data=st.data())
def test_gathered_manifests(watched: Watched, data: st.DataObject) -> None:
    (first, *_) = watched.storage.list(watched.folder.child("gathered/"))
    kept = watched.storage.read(first.location)
    watched.storage.write(first.location, data.draw(damaged([kept], WORDS)))
    try:
        with ends():
            watched.watch.look(None, lambda _: ())
    finally:
        watched.storage.write(first.location, kept)


HELD = (
    b'{"number": 2, "log": ["b", "gathered/", "s3"], "watched": "s3://b/in/", "newest": 1700000000.5, "files": [["b",'
    b' "in/1.csv", "s3", 4, "e", "2024-01-02T03:04:05.678+00:00"]], "announced": [[["b", "gathered/f-0000001.manifest",'
    b' "s3", 4, "e", "2024-01-02T03:04:05+00:00"], ["%s"]]], "messages": [["id", "SECRET", ["%s", "%s"]]]}'
) % ((b"0a" * 16,) * 3)


@examples(300)
@given(held=damaged([HELD], WORDS))
def test_what_is_in_hand(root: Path, held: bytes) -> None:
    storage, folder = Storage(allow_local=True), Location("", f"{root}/held/"[1:], "file")
    storage.write(folder.child("held.json"), held)
    with ends():
        kept = HeldFolder(storage, folder, "s3://b/in/")
        try:
            found = kept.recall(None)
        except StateFailed as error:
            assert f"{folder}held.json is damaged" in error.message  # noqa: PT017
            assert "SECRET" not in "".join(traceback.format_exception(error))  # noqa: PT017
            return
        assert all(one.arrival.run_key and one.arrival.occasion for one in found.announced)
        found.settle(found.versions())
        assert found.waiting >= 0
        kept.save(found)


@examples(100)
@given(day=damaged([b"a" * 16 + b"b" * 16, b""], WORDS))
def test_what_was_taken_lately(root: Path, day: bytes) -> None:
    storage, folder = Storage(allow_local=True), Location("", f"{root}/recent/"[1:], "file")
    now = store_time(storage, folder)
    storage.write(folder.child(f"{now:%Y-%m-%d}"), day)
    with ends():
        try:
            Recent(storage, folder, now).known([digest(folder, "e")])
        except StateFailed as error:
            assert f"{folder}{now:%Y-%m-%d} is damaged" in error.message  # noqa: PT017


CURSORS = [
    b'{"watch": "0123456789abcdef0123456789abcdef s3://b/state/", "asked": ["0a0b0c0d"]}',
    b'{"version": "1.0.0", "digest": "ab", "done": true}',
    b"0123456789abcdef0123456789abcdef file:///tmp/state/",
]


@examples(200)
@given(damaged(CURSORS, WORDS))
def test_cursors(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    with ends():
        assert str(Position.read(text))
        Seen.read(text)
        Cursor.read(text)
