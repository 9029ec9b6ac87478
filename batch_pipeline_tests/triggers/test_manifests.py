"""The manifest trigger on every kind of store: what arrives, once each, through everything that can go wrong."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_pipeline.errors import AccessDenied, ObjectNotFound
from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage
from batch_pipeline.triggers.cursor import Cursor
from batch_pipeline.triggers.looking import LOST, RESET
from batch_pipeline.triggers.manifests import ManifestWatch
from batch_pipeline_tests.triggers.ticking import Daemon, DyingStorage, Killed

LOCAL = pytest.mark.parametrize("folder", ["file"], indirect=True)
"""For what no kind of store has a say in."""
LINE = b'{"source": "s3://bucket/1.jpg"}\n'


@pytest.fixture
def inbox(folder: Location) -> Location:
    return folder.child("inbox/")


@pytest.fixture
def daemon(storage: Storage, folder: Location, inbox: Location) -> Daemon:
    return Daemon(ManifestWatch(storage, inbox, folder.child("state/"), most=3))


def put(storage: Storage, inbox: Location, *names: str, data: bytes = LINE) -> None:
    for name in names:
        storage.write(inbox.child(name), data)


def names(arrivals) -> list[str]:
    return [one.location.name for one in arrivals]


def test_each_new_manifest_arrives_once(daemon: Daemon, storage: Storage, inbox: Location) -> None:
    assert daemon.tick().message == "nothing new among 0 objects"
    put(storage, inbox, "b.manifest", "sub/中文 1.manifest", "b.txt", "x.manifest/y")
    look = daemon.tick()
    assert sorted(names(look.arrivals)) == ["b.manifest", "中文 1.manifest"]
    assert look.message == "2 new manifests"
    one = next(one for one in look.arrivals if one.stem == "b")
    info = storage.head(inbox.child("b.manifest"))
    assert (one.location, one.etag, one.size) == (info.location, info.etag, len(LINE))
    assert one.run_key == f"{info.location.uri} {info.etag}"
    assert one.occasion.stem == "b"
    assert one.occasion.name == f"b-{one.occasion.etag8}"
    look = daemon.tick()
    assert (look.arrivals, look.message) == ((), "nothing new among 4 objects")
    assert daemon.tick().cursor == look.cursor


def test_a_name_that_sorts_before_and_one_rewritten(daemon: Daemon, storage: Storage, inbox: Location) -> None:
    put(storage, inbox, "m.manifest")
    daemon.settle()
    put(storage, inbox, "a.manifest")
    assert names(daemon.tick().arrivals) == ["a.manifest"]
    put(storage, inbox, "m.manifest", data=LINE * 2)
    assert names(daemon.tick().arrivals) == ["m.manifest"]
    daemon.settle()
    assert len(daemon.runs) == 3


@LOCAL
def test_more_than_one_look_takes(daemon: Daemon, storage: Storage, inbox: Location) -> None:
    put(storage, inbox, *(f"{number}.manifest" for number in range(8)))
    assert daemon.tick().message == "3 new manifests; 5 more wait"
    daemon.settle()
    assert sorted(names(daemon.runs.values())) == [f"{number}.manifest" for number in range(8)]


@LOCAL
def test_arrivals_whose_runs_never_came_to_be(daemon: Daemon, storage: Storage, inbox: Location) -> None:
    put(storage, inbox, *(f"{number}.manifest" for number in range(4)))
    first = daemon.tick(launch=1)
    look = daemon.tick(launch=0)
    assert names(look.arrivals)[:2] == names(first.arrivals)[1:]
    assert look.message == "1 new manifest; 2 manifests again, which got no run"
    gone, rewritten, kept = look.arrivals
    storage.delete([gone.location])
    storage.write(rewritten.location, LINE * 3)
    look = daemon.tick()
    assert kept in look.arrivals
    assert gone not in look.arrivals
    assert rewritten not in look.arrivals
    daemon.settle()
    assert len(daemon.runs) == 3


def test_a_lost_tick_comes_again(daemon: Daemon, storage: Storage, inbox: Location) -> None:
    put(storage, inbox, "1.manifest", "2.manifest")
    lost = daemon.tick(launch=0, keep=False)
    assert daemon.tick(launch=0, keep=False).arrivals == lost.arrivals
    put(storage, inbox, "3.manifest")
    daemon.tick(keep=False)
    daemon.cursor = None
    assert daemon.tick().message == f"{RESET}; 3 manifests with a run already"
    assert len(daemon.runs) == 3


@pytest.mark.parametrize("done", [False, True])
def test_killed_at_any_request(folder: Location, storage: Storage, inbox: Location, done: bool) -> None:
    state = folder.child("state/")
    daemon = Daemon(ManifestWatch(storage, inbox, state, most=2))
    put(storage, inbox, "1.manifest")
    daemon.tick()
    for number in range(2, 8):
        put(storage, inbox, f"{number}.manifest")
        with_death = ManifestWatch(DyingStorage(storage, number - 2, done=done), inbox, state, most=2)
        try:
            daemon.tick(using=with_death, keep=False)
        except Killed:
            daemon.tick()
    daemon.settle()
    assert sorted(names(daemon.runs.values())) == [f"{number}.manifest" for number in range(1, 8)]
    if folder.scheme == "file":  # a bucket's times are of seconds, so that some are left until a later look
        assert len(list(storage.list(state))) <= 2


@given(st.text() | st.sampled_from(["0" * 33, "../../x", "{}", "0" * 10_000, "\0", "f" * 31]))
@settings(max_examples=30, deadline=None)
def test_a_cursor_that_is_garbage(cursor: str) -> None:
    with TemporaryDirectory() as root:
        storage, inbox = Storage(allow_local=True), Location("", f"{root}/inbox/"[1:], "file")
        daemon = Daemon(ManifestWatch(storage, inbox, Location("", f"{root}/state/"[1:], "file")))
        put(storage, inbox, "1.manifest")
        daemon.settle()
        daemon.cursor = cursor
        put(storage, inbox, "2.manifest")
        look = daemon.tick()
    assert names(look.arrivals) == ["2.manifest"]
    assert look.message == f"{LOST}; 1 new manifest; 1 manifest with a run already"


def test_a_lost_or_broken_index(daemon: Daemon, storage: Storage, folder: Location, inbox: Location) -> None:
    put(storage, inbox, "1.manifest")
    daemon.settle()
    states = [info.location for info in storage.list(folder.child("state/"))]
    for spoil in (lambda: storage.delete(states), lambda: [storage.write(at, b"[1]\nxy") for at in states]):
        spoil()
        assert "the cursor was lost" in daemon.tick().message
        daemon.settle()
    assert len(daemon.runs) == 1


@LOCAL
def test_only_the_newest_states_are_kept(daemon: Daemon, storage: Storage, folder: Location, inbox: Location) -> None:
    for number in range(6):
        put(storage, inbox, f"{number}.manifest")
        daemon.tick()
    assert len(list(storage.list(folder.child("state/")))) == 2
    storage.delete(info.location for info in storage.list(inbox))
    look = daemon.tick()
    assert look.message == "nothing new among 0 objects"
    assert len(list(storage.list(folder.child("state/")))) == 2
    cursor = Cursor.read(look.cursor)
    assert cursor is not None
    assert cursor.folder == folder.child("state/")
    assert storage.read(folder.child(f"state/index/{cursor.name}")).endswith(b"}\n")


def test_odd_names(
    daemon: Daemon, storage: Storage, folder: Location, inbox: Location, request: pytest.FixtureRequest
) -> None:
    odd = ["%2F.manifest", "a?b#c.manifest", "😀.manifest", ".manifest"]
    odd += ["//.manifest", "./../x.manifest"] if folder.scheme == "s3" else []
    odd += ["a\nb.manifest"] if "moto" not in request.node.name else []  # moto takes no such key
    put(storage, inbox, *odd)
    daemon.settle()
    assert sorted(one.location.key for one in daemon.runs.values()) == sorted(inbox.key + name for name in odd)
    assert all(key.isprintable() for key in daemon.runs)
    assert len({one.occasion.name for one in daemon.runs.values()}) == len(odd)


def test_more_than_a_page(storage: Storage, rgw_bucket: str) -> None:
    inbox = Location(rgw_bucket, "inbox/")
    put(storage, inbox, *(f"{number:04d}.manifest" for number in range(1005)))
    daemon = Daemon(ManifestWatch(storage, inbox, Location(rgw_bucket, "state/"), most=400))
    daemon.settle()
    assert len(daemon.runs) == 1005


def test_an_error_of_storage_changes_nothing(storage: Storage, rgw_bucket: str, monkeypatch) -> None:
    inbox, state = Location(rgw_bucket, "inbox/"), Location(rgw_bucket, "state/")
    daemon = Daemon(ManifestWatch(storage, inbox, state))
    put(storage, inbox, "1.manifest")
    daemon.settle()
    put(storage, inbox, "2.manifest")
    gone = replace(daemon.watch, folder=Location("no-such-bucket-here", "inbox/"))
    with pytest.raises(ObjectNotFound, match="no-such-bucket-here"):
        daemon.tick(using=gone)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(AccessDenied):
            daemon.tick(using=replace(daemon.watch, storage=Storage()))
    assert names(daemon.tick().arrivals) == ["2.manifest"]


def test_equal_times(storage: Storage, tmp_path: Path) -> None:
    inbox = Location("", f"{tmp_path}/inbox/"[1:], "file")
    daemon = Daemon(ManifestWatch(storage, inbox, Location("", f"{tmp_path}/state/"[1:], "file"), most=2))
    put(storage, inbox, "c.manifest", "a.manifest", "b.manifest", "d.manifest")
    for path in (tmp_path / "inbox").iterdir():
        os.utime(path, (1_000_000, 1_000_000))
    assert names(daemon.tick().arrivals) == ["a.manifest", "b.manifest"]
    put(storage, inbox, "0.manifest")
    os.utime(tmp_path / "inbox/0.manifest", (1_000_000, 1_000_000))
    assert names(daemon.tick().arrivals) == ["0.manifest", "c.manifest"]
    assert names(daemon.tick().arrivals) == ["d.manifest"]


@LOCAL
def test_a_state_that_was_left_elsewhere_is_found(
    daemon: Daemon, storage: Storage, folder: Location, inbox: Location
) -> None:
    put(storage, inbox, "1.manifest", "2.manifest")
    (first, waits) = daemon.tick(launch=1).arrivals
    daemon.runs.clear()  # as where the service was deleted
    daemon.runs[waits.run_key] = waits
    daemon.cursor = daemon.tick(launch=0).cursor
    daemon.runs[first.run_key] = first
    daemon.settle()
    daemon.runs.clear()
    daemon.watch = replace(daemon.watch, state=folder.child("elsewhere/"))
    assert daemon.tick().message == "nothing new among 2 objects"
    storage.delete(info.location for info in storage.list(folder.child("state/")))
    put(storage, inbox, "3.manifest")
    assert names(daemon.tick().arrivals) == ["3.manifest"]


@LOCAL
def test_triggers_in_another_order_go_on_from_their_own_states(storage: Storage, folder: Location) -> None:
    """Also where the outputs were moved at the same time."""

    def watch(which: str, place: str) -> ManifestWatch:
        return ManifestWatch(storage, folder.child(f"{which}/"), folder.child(f"{place}/state-{which}/"))

    one, other = (Daemon(watch(which, "a")) for which in "xy")
    for daemon in (one, other):
        put(storage, daemon.watch.folder, "1.manifest")
        daemon.settle()
        daemon.runs.clear()
    for place in "aba":
        one.cursor, other.cursor = other.cursor, one.cursor
        one.watch, other.watch = watch("x", place), watch("y", place)
        for daemon in (one, other):
            assert daemon.tick().message == "nothing new among 1 object"
    added = Daemon(watch("z", "a"), cursor=one.cursor)
    put(storage, folder.child("z/"), "1.manifest")
    assert added.tick().message == "the cursor is of another place, so all is looked at anew; 1 new manifest"


@LOCAL
def test_a_manifest_that_was_deleted_before_its_run_is_told(daemon: Daemon, storage: Storage, inbox: Location) -> None:
    put(storage, inbox, "1.manifest", "2.manifest")
    daemon.tick(launch=0)
    storage.delete([inbox.child("1.manifest")])
    put(storage, inbox, "2.manifest", data=LINE * 2)
    assert daemon.tick().message == "1 new manifest; 1 manifest passed over: deleted since"
