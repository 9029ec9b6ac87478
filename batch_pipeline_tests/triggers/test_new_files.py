"""The trigger that gathers new files, on every kind of store: none missed, none twice, whatever happens."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from batch_pipeline.errors import ObjectNotFound, StateFailed
from batch_pipeline.inputs import InputList
from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage
from batch_pipeline.triggers.clock import store_time
from batch_pipeline.triggers.looking import LOST, RESET
from batch_pipeline.triggers.new_files import NewFilesWatch
from batch_pipeline.triggers.taken import DIGEST_BYTES
from batch_pipeline_tests.triggers.ticking import Daemon, DyingStorage, Killed, lines, listed

LOCAL = pytest.mark.parametrize("folder", ["file"], indirect=True)
"""For what no kind of store has a say in."""
HOUR = 3600.0


def watch(storage: Storage, folder: Location, **changes) -> NewFilesWatch:
    base = NewFilesWatch(
        storage,
        folder.child("drop/"),
        folder.child("state/"),
        folder.child("gathered/"),
        "flowers",
        settle_seconds=0,
        max_files=100,
    )
    return replace(base, **changes)


@pytest.fixture
def drop(folder: Location) -> Location:
    return folder.child("drop/")


@pytest.fixture
def daemon(storage: Storage, folder: Location) -> Daemon:
    return Daemon(watch(storage, folder))


def put(storage: Storage, drop: Location, *names: str, data: bytes = b"1,2\n") -> None:
    for name in names:
        storage.write(drop.child(name), data)


def exactly_once(daemon: Daemon, storage: Storage, drop: Location) -> None:
    taken = listed(storage, list(daemon.runs.values()))
    assert len(taken) == len(set(taken)), "taken twice"
    there = [info for info in storage.list(drop) if daemon.watch.takes(info.location)]
    assert {(info.location.uri, info.etag) for info in there} <= set(taken), "missed"


def test_quiet_files_are_gathered_into_one_manifest(daemon: Daemon, storage: Storage, drop: Location) -> None:
    assert daemon.tick().message == "nothing new among 0 objects"
    put(storage, drop, "b.csv", "a/中 1.csv", data=b"1,2,3\n")
    put(storage, drop, "list.manifest", "folder/")
    look = daemon.tick()
    assert look.message == "1 new manifest of 2 files"
    (arrival,) = look.arrivals
    assert arrival.location == daemon.watch.manifests.child("flowers-00000000.manifest")
    assert (arrival.etag, arrival.stem) == (storage.head(arrival.location).etag, "flowers-00000000")
    infos = {info.location.uri: info for info in storage.list(drop)}
    found = lines(storage, arrival.location)
    assert {line["source"] for line in found} == {drop.child("b.csv").uri, drop.child("a/中 1.csv").uri}
    assert all((line["etag"], line["size"]) == (infos[line["source"]].etag, 6) for line in found)
    assert daemon.tick().arrivals == ()
    put(storage, drop, "0.csv")
    put(storage, drop, "b.csv", data=b"new")
    assert daemon.tick().arrivals[0].stem == "flowers-00000001"
    daemon.settle()
    exactly_once(daemon, storage, drop)


def test_files_wait_until_they_are_quiet(storage: Storage, folder: Location, drop: Location) -> None:
    daemon = Daemon(watch(storage, folder, settle_seconds=HOUR))
    put(storage, drop, "1.csv", "2.csv")
    look = daemon.tick()
    assert (look.arrivals, look.message) == ((), "2 files wait to be quiet for 3600 s, or for the next look")
    assert daemon.tick(using=watch(storage, folder)).message == "1 new manifest of 2 files"


def test_many_files_do_not_wait(storage: Storage, folder: Location, drop: Location) -> None:
    daemon = Daemon(watch(storage, folder, settle_seconds=HOUR, max_files=3))
    put(storage, drop, *(f"{number}.csv" for number in range(8)))
    look = daemon.tick()
    assert [len(lines(storage, one.location)) for one in look.arrivals] == [3, 3]
    assert look.message == "2 new manifests of 6 files; 2 files wait to be quiet for 3600 s, or for the next look"
    put(storage, drop, "0 first.csv")
    assert len(daemon.tick().arrivals) == 1
    daemon.settle()
    exactly_once(daemon, storage, drop)


@LOCAL
def test_many_bytes_do_not_wait(storage: Storage, folder: Location, drop: Location) -> None:
    daemon = Daemon(watch(storage, folder, settle_seconds=HOUR, max_bytes=10))
    for number, size in enumerate([4, 4, 4, 25, 10, 1]):
        put(storage, drop, f"{number}.csv", data=b"x" * size)
    sizes = [[line["size"] for line in lines(storage, one.location)] for one in daemon.tick().arrivals]
    assert sizes == [[4, 4], [4], [25], [10]]


@LOCAL
def test_a_look_hands_out_only_so_much(storage: Storage, folder: Location, drop: Location) -> None:
    daemon = Daemon(watch(storage, folder, max_files=1, most=3))
    put(storage, drop, *(f"{number}.csv" for number in range(7)))
    first = daemon.tick(launch=2)
    assert len(first.arrivals) == 3
    second = daemon.tick(launch=0)
    assert second.arrivals[0] == first.arrivals[2]
    assert len(second.arrivals) == 3
    third = daemon.tick()
    assert third.arrivals == second.arrivals
    assert third.message == (
        "3 manifests again, which got no run; 2 files wait to be quiet for 0 s, or for the next look"
    )
    daemon.settle()
    exactly_once(daemon, storage, drop)
    assert len(daemon.runs) == 7


@pytest.mark.parametrize("done", [False, True])
def test_killed_at_any_request(storage: Storage, folder: Location, drop: Location, done: bool) -> None:
    daemon = Daemon(watch(storage, folder, max_files=2, most=4))
    killed = 0
    for number in range(10):
        put(storage, drop, f"{number}.csv", "rewritten.csv", data=f"{number}".encode())
        try:
            daemon.tick(
                using=replace(daemon.watch, storage=DyingStorage(storage, number, done=done)), keep=bool(number % 2)
            )
        except Killed:
            killed += 1
    assert killed
    daemon.settle()
    exactly_once(daemon, storage, drop)


def test_a_lost_tick_hands_out_the_same(daemon: Daemon, storage: Storage, drop: Location) -> None:
    put(storage, drop, "1.csv")
    lost = daemon.tick(launch=0, keep=False)
    put(storage, drop, "2.csv")
    storage.delete([drop.child("1.csv")])
    look = daemon.tick()
    assert look.arrivals[0] == lost.arrivals[0]
    assert look.message == f"{RESET}; 2 new manifests of 2 files"
    daemon.settle()
    assert listed(storage, list(daemon.runs.values()))[0][0] == drop.child("1.csv").uri


@pytest.mark.parametrize("cursor", [None, "garbage"])
def test_a_lost_cursor_goes_on_from_the_manifests(
    daemon: Daemon, storage: Storage, drop: Location, cursor: str | None
) -> None:
    for number in range(3):
        put(storage, drop, f"{number}.csv")
        daemon.tick()
    forgotten = daemon.runs.popitem()[1]
    daemon.cursor = cursor
    put(storage, drop, "3.csv")
    look = daemon.tick()
    assert [one.stem for one in look.arrivals] == ["flowers-00000002", "flowers-00000003"]
    assert look.arrivals[0] == forgotten
    assert look.message.startswith(LOST if cursor else RESET)
    daemon.settle()
    exactly_once(daemon, storage, drop)
    assert len(daemon.runs) == 4


@LOCAL
def test_what_is_gone_is_forgotten(daemon: Daemon, storage: Storage, folder: Location, drop: Location) -> None:
    put(storage, drop, *(f"{number}.csv" for number in range(10)))
    daemon.settle()
    (full,) = [info.size for info in storage.list(folder.child("state/")) if info.location.name in str(daemon.cursor)]
    storage.delete(info.location for info in storage.list(drop))
    daemon.settle()
    (left,) = [info.size for info in storage.list(folder.child("state/")) if info.location.name in str(daemon.cursor)]
    assert full - left >= 10 * DIGEST_BYTES


@LOCAL
def test_many_manifests_are_read_again_bit_by_bit(storage: Storage, folder: Location, drop: Location) -> None:
    daemon = Daemon(watch(storage, folder, max_files=1, most=100))
    put(storage, drop, *(f"{number}.csv" for number in range(70)))
    daemon.settle()
    forgotten = [daemon.runs.popitem()[1] for _ in range(5)]
    daemon.cursor = None
    put(storage, drop, "new.csv")
    look = daemon.tick(using=replace(daemon.watch, most=3))
    assert look.arrivals == tuple(reversed(forgotten))[:3]
    assert look.message == (
        f"{RESET}; 3 new manifests of 3 files; "
        "manifests written before are still to be read, and nothing is gathered until then"
    )
    daemon.settle()
    assert len(daemon.runs) == 71
    exactly_once(daemon, storage, drop)


@LOCAL
def test_a_manifest_that_was_deleted_or_spoilt(daemon: Daemon, storage: Storage, drop: Location) -> None:
    put(storage, drop, "1.csv")
    (one,) = daemon.tick(launch=0).arrivals
    storage.delete([one.location])
    assert daemon.tick().arrivals == ()
    put(storage, drop, "2.csv")
    (two,) = daemon.tick(launch=0, keep=False).arrivals
    storage.write(two.location, b'no json\n[1]\n{"source": 5}\n{"source": "s3://bucket/x"}\n\n')
    put(storage, drop, "3.csv")
    look = daemon.tick()
    assert look.arrivals[0].location == two.location
    assert [line["source"] for line in lines(storage, look.arrivals[1].location)][-1] == drop.child("3.csv").uri


def test_another_look_wrote_the_same_number(daemon: Daemon, storage: Storage, drop: Location) -> None:
    class Overtaken(Storage):
        def write(self, location: Location, data: bytes, **conditions) -> str:
            if location.name.endswith(".manifest"):
                put(storage, drop, "late.csv")
                daemon.tick(keep=False)
            return super().write(location, data, **conditions)

    put(storage, drop, "1.csv")
    look = daemon.tick(using=replace(daemon.watch, storage=Overtaken(allow_local=True)))
    assert look.arrivals == ()
    daemon.settle()
    exactly_once(daemon, storage, drop)
    assert len(daemon.runs) == 1


@LOCAL
def test_folders_within_the_watched_one_and_patterns(storage: Storage, folder: Location, drop: Location) -> None:
    inside = watch(storage, folder, state=drop.child("state/"), manifests=drop.child("gathered/"), pattern="*.csv")
    daemon = Daemon(inside)
    put(storage, drop, "a.csv", "b.txt", "sub/c.csv", "gathered/x.csv")
    daemon.settle()
    taken = {source for source, _ in listed(storage, list(daemon.runs.values()))}
    assert taken == {drop.child("a.csv").uri, drop.child("sub/c.csv").uri}
    daemon.watch = replace(inside, pattern="*.txt")
    daemon.settle()
    daemon.watch = inside
    daemon.settle()
    assert len(daemon.runs) == 2


def test_other_manifests_in_the_same_folder(daemon: Daemon, storage: Storage, folder: Location, drop: Location) -> None:
    others = Daemon(watch(storage, folder, name="flowers-00000000x", state=folder.child("other/"), max_files=1))
    put(storage, folder.child("gathered/"), "flowers-1.manifest", "flowers-.manifest", "z.manifest", "flowers-00000000")
    put(storage, drop, "1.csv", "2.csv")
    others.settle()
    daemon.settle()
    daemon.cursor = others.cursor = None
    put(storage, drop, "3.csv")
    daemon.settle()
    others.settle()
    assert (len(daemon.runs), len(others.runs)) == (2, 3)
    exactly_once(daemon, storage, drop)
    exactly_once(others, storage, drop)


@LOCAL
def test_a_log_that_moved_goes_on(daemon: Daemon, storage: Storage, folder: Location, drop: Location) -> None:
    """Also from a manifest of which no state tells, and where the cursor is lost later."""

    def move(place: str) -> None:
        daemon.watch = replace(watch(storage, folder.child(f"{place}/")), folder=drop)

    move("a")
    put(storage, drop, "1.csv")
    daemon.settle()
    put(storage, drop, "2.csv")
    unknown = daemon.tick(keep=False, launch=0).arrivals  # as where the look is killed
    for place in "bca":
        move(place)
        put(storage, drop, f"{place}.csv")
        look = daemon.tick()
        assert look.arrivals[:-1] == (unknown if place == "b" else ())
        exactly_once(daemon, storage, drop)
    assert sorted(one.stem for one in daemon.runs.values()) == [f"flowers-{number:08d}" for number in range(5)]
    for place in "ac":
        move(place)
        daemon.settle()
        daemon.cursor = None
        daemon.settle()
    assert len(daemon.runs) == 5


@LOCAL
def test_nothing_is_taken_where_what_was_taken_is_gone(
    daemon: Daemon, storage: Storage, folder: Location, drop: Location
) -> None:
    put(storage, drop, "1.csv")
    daemon.settle()
    storage.delete(info.location for info in storage.list(daemon.watch.state))
    moved = replace(daemon.watch, state=folder.child("s/"), manifests=folder.child("m/"))
    with pytest.raises(StateFailed, match=r"state/, of which the sensor's cursor tells, is gone.*set `state_path`"):
        daemon.tick(using=moved)
    found = replace(moved, manifests=daemon.watch.manifests)
    assert daemon.tick(using=found).arrivals == ()
    for place in (found.state, found.manifests):
        storage.delete(info.location for info in storage.list(place))
    with pytest.raises(StateFailed, match=r"/s/, of which the sensor's cursor tells, is gone.*reset the cursor"):
        daemon.tick(using=found)


@LOCAL
def test_an_older_cursor_whose_folder_has_another_name_by_now_takes_nothing(
    daemon: Daemon, storage: Storage, folder: Location, drop: Location
) -> None:
    """It names no folder. Where it is told which, the trigger goes on."""
    put(storage, drop, "1.csv")
    daemon.settle()
    assert daemon.cursor is not None
    daemon.cursor = daemon.cursor.split()[0]
    renamed = replace(daemon.watch, state=folder.child("s/"), manifests=folder.child("m/"))
    with pytest.raises(StateFailed, match=r"/s/, of which the sensor's cursor tells, is gone.*set `state_path`"):
        daemon.tick(using=renamed)
    assert daemon.tick().message == "nothing new among 1 object"


@LOCAL
def test_a_gathered_manifest_that_was_deleted_before_its_run_is_told(
    daemon: Daemon, storage: Storage, drop: Location
) -> None:
    put(storage, drop, "1.csv")
    storage.delete([one.location for one in daemon.tick(launch=0).arrivals])
    assert daemon.tick().message.startswith("1 manifest passed over: deleted since")


def test_odd_names(daemon: Daemon, storage: Storage, folder: Location, drop: Location, request) -> None:
    odd = ["%2F", "a?b#c", "😀.csv", '"\\', " ", "\u2028x", "x\x85y"]
    odd += ["//x", "../x", ".", "a/./b"] if folder.scheme == "s3" else []
    odd += ["a\nb", "a\rb", "\x7f"] if "moto" not in request.node.name else []  # moto takes no such keys
    put(storage, drop, *odd)
    daemon.settle()
    (arrival,) = daemon.runs.values()
    sources = [one.source for one in InputList(storage, arrival.location, allow_local=True).read()]
    assert sorted(source.key for source in sources) == sorted(drop.key + name for name in odd)
    assert all(storage.head(source).size == 4 for source in sources)
    exactly_once(daemon, storage, drop)


def test_more_than_a_page(storage: Storage, rgw_bucket: str) -> None:
    folder = Location(rgw_bucket, "")
    daemon = Daemon(watch(storage, folder, max_files=300))
    put(storage, folder.child("drop/"), *(f"{number:04d}.csv" for number in range(1005)))
    daemon.settle()
    assert sorted(len(lines(storage, one.location)) for one in daemon.runs.values()) == [105, 300, 300, 300]
    exactly_once(daemon, storage, folder.child("drop/"))


def test_an_upload_in_parts_that_ends_after_later_ones(storage: Storage, rgw_bucket: str) -> None:
    """A bucket may date it when it began."""
    folder = Location(rgw_bucket, "")
    drop = folder.child("drop/")
    daemon = Daemon(watch(storage, folder))
    with storage.open_writer(drop.child("long.csv")) as writer:
        writer.write(b"x" * 9_000_000)
        put(storage, drop, "short.csv")
        daemon.tick()
    daemon.settle()
    assert len(daemon.runs) == 2
    exactly_once(daemon, storage, drop)


def test_times_that_are_equal_past_or_to_come(storage: Storage, tmp_path: Path) -> None:
    folder = Location("", f"{tmp_path}/"[1:], "file")
    drop = folder.child("drop/")
    daemon = Daemon(watch(storage, folder, settle_seconds=HOUR, max_files=2))
    put(storage, drop, "c.csv", "a.csv", "b.csv")

    def date(moment: float, *names: str) -> None:
        for name in names:
            os.utime(tmp_path / "drop" / name, (moment, moment))

    date(1_000_000, "a.csv", "b.csv", "c.csv")
    look = daemon.tick()
    assert [[Path(line["source"]).name for line in lines(storage, one.location)] for one in look.arrivals] == [
        ["a.csv", "b.csv"],
        ["c.csv"],
    ]
    put(storage, drop, "0.csv", "future.csv")
    date(1_000_000, "0.csv")
    date(datetime.now(UTC).timestamp() + 10 * HOUR, "future.csv")
    daemon.watch = replace(daemon.watch, max_files=5)
    assert len(lines(storage, daemon.tick().arrivals[0].location)) == 2
    put(storage, drop, "now.csv")
    assert daemon.tick().arrivals == ()
    exactly_once(daemon, storage, drop.child("none/"))


def test_an_error_of_storage_is_told(daemon: Daemon) -> None:
    gone = Location("no-such-bucket-here", "drop/")
    if daemon.watch.folder.scheme == "s3":
        with pytest.raises(ObjectNotFound, match="no-such-bucket-here"):
            daemon.tick(using=replace(daemon.watch, folder=gone))


def test_the_clock_is_the_stores(storage: Storage, folder: Location) -> None:
    said = store_time(storage, folder)
    assert said.tzinfo is not None
    storage.write(folder.child("x"), b"")
    written = storage.head(folder.child("x"))
    assert abs((written.modified - said).total_seconds()) < 60
