"""What every kind of store must do alike: local disk, moto and Ceph."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from batch_pipeline.errors import ObjectNotFound, PreconditionFailed
from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage
from batch_pipeline.storage.objects import CHUNK_BYTES

NAMES = [
    "a b",
    "中文.csv",
    "a+b",
    "a%b",
    "a%2Fb",
    "a#b",
    "a?b=c&d",
    "é",
    "e\u0301",
    "😀",
    "\uffee",
    "a'\"<>&b",
    "a\\b",
    "~",
    "{x}",
]


class _Stop(Exception):
    """What goes wrong while an object is being written."""


def test_write_head_read(storage: Storage, folder: Location) -> None:
    place = folder.child("dir/x.bin")
    etag = storage.write(place, b"0123456789")
    info = storage.head(place)
    assert (info.location, info.size, info.etag) == (place, 10, etag)
    assert info.modified.tzinfo is not None
    assert storage.exists(place)
    assert storage.read(place) == b"0123456789"
    assert storage.read(place, 2, 5) == b"234"
    assert storage.read(place, 8) == b"89"
    assert storage.read(place, 8, 100) == b"89"
    assert storage.read(place, 10) == storage.read(place, 50, 60) == storage.read(place, 3, 3) == b""
    assert storage.read(place, if_match=etag) == b"0123456789"


def test_an_empty_object(storage: Storage, folder: Location) -> None:
    place = folder.child("empty")
    etag = storage.write(place, b"")
    assert storage.read(place) == storage.read(place, 0, 10) == b""
    with storage.open(place) as stream:
        assert (stream.size, stream.etag, list(stream)) == (0, etag, [])


def test_what_is_not_there(storage: Storage, folder: Location) -> None:
    place = folder.child("none")
    assert not storage.exists(place)
    for ask in (storage.head, storage.read, lambda at: storage.read(at, 5, 5), lambda at: storage.read(at, 5)):
        with pytest.raises(ObjectNotFound, match="none"):
            ask(place)
    assert list(storage.list(folder.child("nothing/"))) == []
    assert storage.delete([place]) == 1


@pytest.mark.parametrize("name", NAMES)
def test_names_of_every_kind(storage: Storage, folder: Location, name: str) -> None:
    place = folder.child(f"dir {name}/{name}")
    etag = storage.write(place, name.encode())
    assert storage.read(place) == name.encode()
    assert [info.location for info in storage.list(folder)] == [place]
    storage.write(place, b"2", if_match=etag)
    composed = storage.compose(folder.child(f"dir {name}/composed"), [place, place])
    assert storage.read(composed.location) == b"22"
    storage.delete([place, composed.location])
    assert list(storage.list(folder)) == []


def test_a_listing_says_when_an_object_was_written(storage, folder):
    storage.write(folder.child("a"), b"x")
    (listed,) = storage.list(folder)
    assert abs(datetime.now(UTC) - listed.modified) < timedelta(minutes=5)
    assert abs(storage.head(folder.child("a")).modified - listed.modified) < timedelta(seconds=2)


def test_listing_is_in_the_order_of_the_whole_keys_bytes(storage: Storage, folder: Location) -> None:
    keys = ["a", "a.b", "a-b/x", "a!", "b/a/c", "b/a.c", "b/a!", "b", "\uffee", "😀", "Z", "中/文", "a0"]
    keys = [key if key not in ("a", "b") else key + "_" for key in keys] + ["a/1", "a/2/3", "a/2.5"]
    for key in keys:
        storage.write(folder.child(key), b"1")
    expected = sorted((folder.key + key for key in keys), key=str.encode)
    assert [info.location.key for info in storage.list(folder)] == expected
    for index, key in enumerate(expected):
        assert [info.location.key for info in storage.list(folder, start_after=key)] == expected[index + 1 :]
    below = folder.child("b/")
    assert [info.location.key for info in storage.list(below)] == [key for key in expected if key.startswith(below.key)]


def test_only_one_of_many_creates(storage: Storage, folder: Location) -> None:
    place = folder.child("lock")

    def create(number: int) -> bool:
        try:
            storage.write(place, str(number).encode(), if_absent=True)
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [number for number, created in enumerate(pool.map(create, range(16))) if created]
    assert len(won) == 1
    assert storage.read(place) == str(won[0]).encode()


def test_only_one_of_many_replaces(storage: Storage, folder: Location) -> None:
    place = folder.child("lock")
    etag = storage.write(place, b"first")

    def replace(number: int) -> bool:
        try:
            storage.write(place, f"n{number}".encode(), if_match=etag)
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [number for number, replaced in enumerate(pool.map(replace, range(16))) if replaced]
    assert len(won) == 1
    assert storage.read(place) == f"n{won[0]}".encode()
    for stale in (etag, "bogus"):
        with pytest.raises(PreconditionFailed):
            storage.write(place, b"x", if_match=stale)
        with pytest.raises(PreconditionFailed):
            storage.read(place, if_match=stale)
    with pytest.raises(PreconditionFailed):
        storage.write(folder.child("absent"), b"x", if_match=etag)
    assert not storage.exists(folder.child("absent"))


def test_streams_come_in_bounded_chunks(storage: Storage, folder: Location) -> None:
    data = os.urandom(2 * CHUNK_BYTES + 12345)
    place = folder.child("large")
    storage.write(place, data)
    with storage.open(place) as stream:
        chunks = list(stream)
    assert b"".join(chunks) == data
    assert max(map(len, chunks)) <= CHUNK_BYTES
    with storage.open(place, 100, CHUNK_BYTES + 200) as stream:
        assert stream.size == len(data)
        assert stream.read() == data[100 : CHUNK_BYTES + 200]


@pytest.mark.parametrize(
    ("start", "end"), [(0, None), (1, None), (0, CHUNK_BYTES + 1), (5, CHUNK_BYTES + 5), (2 * CHUNK_BYTES, None)]
)
def test_the_beginning_of_what_is_known_to_be_large_comes_before_all_of_a_chunk(
    storage: Storage, folder: Location, start: int, end: int | None
) -> None:
    place, data = folder.child("large"), os.urandom(2 * CHUNK_BYTES + 100)
    etag = storage.write(place, data)
    with storage.open(place, start, end, etag, size=len(data)) as stream:
        chunks = list(stream)
    assert b"".join(chunks) == data[start:end]
    is_large = len(data[start:end]) > CHUNK_BYTES and folder.scheme == "s3"
    assert len(chunks[0]) == min(2 * 2**20 if is_large else CHUNK_BYTES, len(data[start:end]))


@pytest.mark.parametrize("size", [0, 1, 1000, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_an_object_of_known_size_is_still_read_whole_and_as_the_version_that_was_known(
    storage: Storage, folder: Location, size: int
) -> None:
    place, data = folder.child("known"), os.urandom(size)
    etag = storage.write(place, data)
    with storage.open(place, if_match=etag, size=size) as stream:
        assert (stream.size, stream.etag, stream.read()) == (size, etag, data)
    with storage.open(place, 0, 10, etag, size=size) as stream:
        assert (stream.size, stream.read()) == (size, data[:10])
    storage.write(place, b"x" + os.urandom(2 * CHUNK_BYTES))
    with pytest.raises(PreconditionFailed):
        storage.open(place, if_match=etag, size=size)
    storage.delete([place])
    with pytest.raises(ObjectNotFound):
        storage.open(place, if_match=etag, size=size)


def test_a_stream_is_of_one_version(storage: Storage, folder: Location) -> None:
    place = folder.child("large")
    storage.write(place, b"a" * (CHUNK_BYTES + 10))
    with storage.open(place) as stream:
        assert set(next(iter(stream))) == {ord("a")}
        storage.write(place, b"b" * (CHUNK_BYTES + 10))
        if folder.scheme == "file":  # an open file keeps its version
            assert set(stream.read()) == {ord("a")}
        else:
            with pytest.raises(PreconditionFailed):
                stream.read()


@pytest.mark.parametrize("size", [0, 10, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 7])
def test_a_writer_writes_it_whole(storage: Storage, folder: Location, size: int) -> None:
    data = os.urandom(size)
    place = folder.child("dir/written")
    with storage.open_writer(place) as writer:
        for start in range(0, size, 3_000_001):
            writer.write(data[start : start + 3_000_001])
        assert not storage.exists(place)
    assert (writer.size, writer.etag) == (size, storage.head(place).etag)
    assert storage.read(place) == data


@pytest.mark.parametrize("size", [10, CHUNK_BYTES + 7])
def test_an_abandoned_writer_leaves_nothing(storage: Storage, folder: Location, size: int) -> None:
    with suppress(_Stop), storage.open_writer(folder.child("dir/written")) as writer:
        writer.write(bytes(size))
        raise _Stop
    assert list(storage.list(folder)) == []
    if folder.scheme == "s3":
        uploads = storage.connection.client.list_multipart_uploads(Bucket=folder.bucket)
        assert not uploads.get("Uploads")


def test_storage_can_be_pickled(storage: Storage, folder: Location) -> None:
    storage.write(folder.child("x"), b"1")
    assert pickle.loads(pickle.dumps(storage)).read(folder.child("x")) == b"1"


def test_many_are_deleted(storage: Storage, folder: Location) -> None:
    places = [folder.child(f"d/{number}") for number in range(30)]
    for place in places:
        storage.write(place, b"1")
    assert storage.delete(info.location for info in storage.list(folder)) == 30
    assert list(storage.list(folder)) == []
