"""What only buckets have: odd keys, composing inside the store, credentials, stores that refuse."""

from __future__ import annotations

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from batch_pipeline.errors import AccessDenied, ObjectNotFound, StorageFailed, StorageRefused
from batch_pipeline.locations import Location
from batch_pipeline.storage import ObjectInfo, Storage
from batch_pipeline.storage.composing import MIN_PART, plan
from batch_pipeline.storage.connection import Connection
from batch_pipeline.storage.timeouts import Timeouts
from batch_pipeline_tests.conftest import S3Server

ODD = [
    "a//b",
    "/a",
    "//a",
    "a/./b",
    "a/../b",
    "./a",
    "..",
    ".",
    "a/",
    "/",
    "a\x01b",
    "a\tb",
    "a\x7fb",
    "a\rb",
    "a/..",
    "a\ufffeb",
]
MIB = 1024 * 1024


@pytest.mark.parametrize("key", ODD)
def test_odd_keys(storage: Storage, s3: S3Server, bucket: str, key: str) -> None:
    place = Location(bucket, key)
    if key == "a\ufffeb" and s3.kind == "moto":
        pytest.skip("moto's XML answers can't hold it")
    etag = storage.write(place, b"odd")
    with storage.open_writer(Location(bucket, "a")) as writer:
        writer.write(b"plain")
    assert storage.read(place) == b"odd"
    assert storage.read(place, 1, 2, if_match=etag) == b"d"
    assert storage.open(place, if_match=etag, size=3).read() == b"odd"
    assert {info.location.key for info in storage.list(Location(bucket, ""))} == {key, "a"}
    assert storage.delete([place, Location(bucket, "a")]) == 2
    assert list(storage.list(Location(bucket, ""))) == []


@pytest.mark.parametrize("key", ["a\x01b", "a\ufffeb", "a%41 +b", "a\nb&c<"])
def test_odd_keys_of_large_objects(storage: Storage, s3: S3Server, bucket: str, key: str) -> None:
    if s3.kind == "moto" and not key.isprintable():
        pytest.skip("moto's XML answers can't hold it")
    place, client = Location(bucket, f"out/{key}"), storage.connection.client
    with storage.open_writer(place) as writer:
        writer.write(bytes(9 * MIB))
    assert (writer.etag, writer.size) == (storage.head(place).etag, 9 * MIB)
    for _ in range(2):
        client.create_multipart_upload(Bucket=bucket, Key=place.key)
    for other in ("elsewhere", "out/others"):
        client.create_multipart_upload(Bucket=bucket, Key=other)
    assert storage.drop_unfinished(Location(bucket, "out/"), lambda found: found == place) == 2
    left = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert sorted(one["Key"] for one in left) == ["elsewhere", "out/others"]


@pytest.mark.parametrize(("own", "others"), [("a%20b", "a b"), ("a b", "a%20b")])
def test_the_unfinished_upload_of_another_spelling_is_anothers(
    storage: Storage, rgw_bucket: str, own: str, others: str
) -> None:
    client = storage.connection.client
    for key in (own, others):
        client.create_multipart_upload(Bucket=rgw_bucket, Key=f"out/{key}")
    assert storage.drop_unfinished(Location(rgw_bucket, "out/"), lambda found: found.key == f"out/{own}") == 1
    (left,) = client.list_multipart_uploads(Bucket=rgw_bucket)["Uploads"]
    assert left["Key"] == f"out/{others}"


def test_unfinished_uploads_are_found_behind_a_thousand_of_others(storage: Storage, rgw_bucket: str) -> None:
    client, own = storage.connection.client, [Location(rgw_bucket, f"out/{key}") for key in ("a own", "x own")]
    with ThreadPoolExecutor(8) as pool:
        keys = [f"out/b {number:04}" for number in range(1001)] + [location.key for location in own]
        list(pool.map(lambda key: client.create_multipart_upload(Bucket=rgw_bucket, Key=key), keys))
    assert storage.drop_unfinished(Location(rgw_bucket, "out/"), lambda found: found in own) == 2
    assert storage.drop_unfinished(Location(rgw_bucket, "out/"), lambda _: True) == 1001


def test_composing(storage: Storage, s3: S3Server, bucket: str) -> None:
    sizes = [10, 6 * MIB, 3, 0, 5 * MIB, 5 * MIB + 1, 100, 0, 7, 2 * MIB, 4 * MIB]
    contents = [os.urandom(size) for size in sizes]
    places = [Location(bucket, f"_batch/部 分%/{number}") for number in range(len(sizes))]
    for place, content in zip(places, contents, strict=True):
        storage.write(place, content)
    target = Location(bucket, "结 果+%.txt")
    info = storage.compose(target, places)
    assert (info.location, info.size) == (target, sum(sizes))
    assert storage.read(target) == b"".join(contents)
    assert storage.head(target) == info
    assert not storage.connection.client.list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_composing_little_or_nothing(storage: Storage, bucket: str) -> None:
    empty, small = Location(bucket, "empty"), Location(bucket, "small")
    storage.write(empty, b"")
    storage.write(small, b"12")
    target = Location(bucket, "target")
    assert storage.compose(target, []).size == storage.compose(target, [empty, empty]).size == 0
    storage.compose(target, [small, empty] * 200)
    assert storage.read(target) == b"12" * 200


def test_a_composition_that_fails_leaves_nothing(storage: Storage, s3: S3Server, bucket: str) -> None:
    part = Location(bucket, "part")
    storage.write(part, bytes(6 * MIB))
    info = storage.head(part)
    storage.delete([part])
    with pytest.raises(StorageFailed):
        storage.compose(Location(bucket, "target"), [info, info])
    assert list(storage.list(Location(bucket, ""))) == []
    assert not storage.connection.client.list_multipart_uploads(Bucket=bucket).get("Uploads")


@pytest.mark.parametrize(
    "sizes",
    [
        *([], [0, 0], [1], [MIN_PART], [MIN_PART - 1, 1, 1], [1, MIN_PART], [1, 2 * MIN_PART], [1, 3 * 1024 * MIB]),
        *([100] * 20_000, [MIN_PART + 1, 3] * 500, [3, 2 * MIN_PART] * 500, [MIN_PART - 1] * 7),
    ],
)
def test_the_plan_covers_every_byte_and_keeps_to_s3s_rules(sizes: list[int]) -> None:
    from datetime import UTC, datetime

    parts = [ObjectInfo(Location("b", str(n)), size, "e", datetime.now(UTC)) for n, size in enumerate(sizes)]
    pieces = list(plan(parts))
    covered = [(piece.part.location.key, piece.start, piece.end) for group in pieces for piece in group]
    assert sum(end - start for _, start, end in covered) == sum(sizes)
    position = [(key, start) for key, start, _ in covered]
    assert position == sorted(position, key=lambda at: (int(at[0]), at[1]))
    for group in pieces[:-1]:
        assert sum(piece.size for piece in group) >= MIN_PART
    for group in pieces:
        if len(group) > 1:  # passes through the client
            assert sum(piece.size for piece in group) < 2 * MIN_PART
            assert all(piece.size < MIN_PART for piece in group)


def test_a_bucket_that_is_not_there(storage: Storage, s3: S3Server) -> None:
    folder = Location("test-not-there", "")
    place = folder.child("x")
    with pytest.raises(ObjectNotFound, match="no bucket 'test-not-there'"):
        storage.read(place)
    for if_absent in (True, False):
        with pytest.raises(ObjectNotFound, match="no bucket 'test-not-there'"):
            storage.write(place, b"", if_absent=if_absent)
    with pytest.raises(ObjectNotFound, match="no bucket"):
        list(storage.list(folder))
    with pytest.raises(ObjectNotFound):
        storage.head(place)


def test_credentials_that_are_refused(rgw_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Location(rgw_bucket, "x")
    for name, value in (("AWS_ACCESS_KEY_ID", "unknown"), ("AWS_SECRET_ACCESS_KEY", "wrong-secret")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            for message in denied(place):
                assert "refused" in message
                assert "AWS_ACCESS_KEY_ID" in message


def test_credentials_that_are_missing(rgw_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for message in denied(Location(rgw_bucket, "x")):
        assert "AWS_ACCESS_KEY_ID" in message
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    for message in denied(Location(rgw_bucket, "x")):
        assert "nobody" in message


@pytest.mark.parametrize("value", ["hunter2\n", " hunter2", "hunter2\r\nx: y", "hünter2", "hunter2\x7f"])
@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
def test_credentials_that_no_header_can_hold_are_named_and_not_repeated(
    rgw_bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    for message in denied(Location(rgw_bucket, "x")):
        assert name in message
        assert "nter2" not in message
    assert caplog.text == ""


def test_a_value_that_no_header_can_hold_is_an_error_that_does_not_repeat_it(
    rgw_bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Storage(timeouts=Timeouts(read_seconds=1, attempts=1))
    for place in (Location(rgw_bucket, "x"), Location(rgw_bucket, "odd//x")):
        with pytest.raises(StorageFailed) as error:
            storage.read(place, if_match="hunter2\n")
        assert "hunter2" not in str(error.value)
    assert "hunter2" not in caplog.text


def test_credentials_and_endpoint_from_a_profile(
    rgw_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    endpoint = os.environ["AWS_ENDPOINT_URL_S3"]
    with config.open("w", encoding="utf-8") as file:
        file.write("[profile work]\naws_access_key_id=test\naws_secret_access_key=testsecret\nregion=us-east-1\n")
        file.write(f"endpoint_url={endpoint}\n")
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "work")
    storage = Storage()
    storage.write(Location(rgw_bucket, "x"), b"1")
    assert storage.read(Location(rgw_bucket, "x")) == b"1"


@pytest.mark.parametrize(
    "address",
    [
        *("foo", "foo:9000", "http://", "ftp://x", "http://a b", "http://x:99999", " http://x", "http://x\n"),
        *("http://[::1", "http://x/?y=hunter2", "http://me:hunter2@x"),
    ],
)
@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_an_endpoint_that_is_no_address_is_named(
    rgw_bucket: str, monkeypatch: pytest.MonkeyPatch, name: str, address: str
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.setenv(name, address)
    for ask in (Storage().head, Storage().read):
        with pytest.raises(StorageRefused, match=f"^{name} is no address of an object store: ") as error:
            ask(Location(rgw_bucket, "x"))
        assert "hunter2" not in str(error.value)


def test_the_general_endpoint_variable(rgw_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", os.environ["AWS_ENDPOINT_URL_S3"])
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    Storage().write(Location(rgw_bucket, "x"), b"1")


def test_a_store_that_is_not_there_fails_soon(rgw_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Location(rgw_bucket, "x")
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    port = listener.getsockname()[1]
    fillers = [socket.socket() for _ in range(4)]  # a full queue: further connections get no answer at all
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.1", port))
    for endpoint in ("http://127.0.0.1:9", "http://none.invalid", f"http://127.0.0.1:{port}"):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        for ask in (Storage().head, Storage().read):
            began = time.monotonic()
            with pytest.raises(StorageFailed, match=r"can't be reached.*AWS_ENDPOINT_URL_S3") as error:
                ask(place)
            assert time.monotonic() - began < 60
            assert "\n" not in str(error.value)
    for opened in (listener, *fillers):
        opened.close()


def test_a_store_that_hangs_is_given_up(rgw_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # it takes a request and never answers
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{listener.getsockname()[1]}")
        storage = Storage(timeouts=Timeouts(read_seconds=0.2, attempts=2))
        for ask in (storage.head, storage.read, lambda at: list(storage.list(Location(at.bucket, "")))):
            with pytest.raises(StorageFailed, match=rf"{rgw_bucket}.*can't be reached.*AWS_ENDPOINT_URL_S3"):
                ask(Location(rgw_bucket, "x"))


def test_a_store_to_which_the_line_is_slow_is_waited_for(rgw_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole takes longer than a byte of an answer is waited for."""

    class Handler(BaseHTTPRequestHandler):
        def setup(self) -> None:
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
            super().setup()

        def do_PUT(self) -> None:
            for _ in range(24):
                time.sleep(0.1)
                self.rfile.read(MIB)
            self.send_response(200)
            self.send_header("ETag", '"etag"')
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        storage = Storage(timeouts=Timeouts(read_seconds=1.5, attempts=1))
        assert storage.write(Location(rgw_bucket, "x"), bytes(24 * MIB)) == "etag"
        server.shutdown()


def test_local_files_only_where_allowed() -> None:
    with pytest.raises(AccessDenied, match="does not allow"):
        Storage().read(Location("", "etc/hostname", "file"))


def denied(place: Location) -> list[str]:
    """What each way to reach the store says when it may not."""
    messages = []
    for ask in (Storage().head, Storage().read, lambda at: list(Storage().list(Location(at.bucket, "")))):
        with pytest.raises(AccessDenied) as error:
            ask(place)
        assert "\n" not in str(error.value)
        assert "wrong-secret" not in str(error.value)
        messages.append(str(error.value))
    return messages


def test_credentials_are_not_asked_for_again_and_again(
    storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All requests wait meanwhile."""
    asked: list[float] = []
    real = Connection._credentials

    def counted(self: Connection) -> object:
        asked.append(time.monotonic())
        return real(self)

    monkeypatch.setattr(Connection, "_credentials", counted)
    place = Location(bucket, "a")
    storage.write(place, b"plain")
    before = len(asked)
    for _ in range(4):
        time.sleep(0.15)  # obstore leaves a tenth of a second between two questions
        assert storage.read(place) == b"plain"
    assert len(asked) == before
