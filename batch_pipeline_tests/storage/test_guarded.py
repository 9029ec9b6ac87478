"""A change that is under way when the permission for it is lost: it is not tried again, and does not appear."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_pipeline.errors import ObjectNotFound, OwnershipLost
from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage
from batch_pipeline.storage.disk import ASKED_LATELY
from batch_pipeline.storage.guarded import GuardedStorage
from batch_pipeline_tests.conftest import S3Server
from batch_pipeline_tests.faults.proxy import Ask, Fault, FaultyServer, Script, faulty_proxy

MIB = 2**20
BUSY = Fault("status", 503, "SlowDown")


class Permission:
    """Given at first, and lost for good."""

    def __init__(self) -> None:
        self.lost = False

    def check(self) -> None:
        if self.lost:
            raise OwnershipLost("another run took over")


@pytest.fixture
def permission() -> Permission:
    return Permission()


@pytest.fixture
def proxy(rgw_server: S3Server, rgw_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    with faulty_proxy(rgw_server.endpoint) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
        yield server


def lost_at(permission: Permission, asks: list[Ask], *methods: str) -> Script:
    """A script: the store is busy for each such request, and with the first of them the permission is lost."""

    def script(ask: Ask) -> Fault | None:
        if ask.method not in methods:
            return None
        asks.append(ask)
        permission.lost = True
        return BUSY

    return script


@pytest.mark.parametrize("key", ["plain", "odd//key"])
def test_a_request_is_not_tried_again(proxy: FaultyServer, rgw_bucket: str, permission: Permission, key: str) -> None:
    place, asks = Location(rgw_bucket, key), list[Ask]()
    storage = GuardedStorage(Storage(), permission.check)
    storage.write(place, b"before")
    proxy.script = lost_at(permission, asks, "PUT", "POST", "DELETE")
    for change in (lambda: storage.write(place, b"after"), lambda: storage.delete([place])):
        permission.lost = False
        asks.clear()
        with pytest.raises(OwnershipLost):
            change()
        assert len(asks) == 1
    assert Storage().read(place) == b"before"


def test_a_large_object_does_not_appear(proxy: FaultyServer, rgw_bucket: str, permission: Permission) -> None:
    place, asks = Location(rgw_bucket, "large"), list[Ask]()

    def write() -> None:
        with GuardedStorage(Storage(), permission.check).open_writer(place) as writer:
            writer.write(bytes(9 * MIB))
            proxy.script = lost_at(permission, asks, "POST")

    with pytest.raises(OwnershipLost):
        write()
    assert len(asks) == 1
    _nothing_left(place)


def test_what_is_put_together_does_not_appear(folder: Location, permission: Permission) -> None:
    """The permission is lost while the parts are copied."""
    storage, target = Storage(allow_local=True), folder.child("target")
    parts = [folder.child(name) for name in "ab"]
    for part in parts:
        storage.write(part, os.urandom(6 * MIB))
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        permission.lost = asked > 1
        permission.check()

    with pytest.raises(OwnershipLost):
        GuardedStorage(storage, check).compose(target, parts)
    _nothing_left(target)


def test_what_the_check_asks_the_store_itself_needs_no_permission(folder: Location) -> None:
    storage, place = Storage(allow_local=True), folder.child("a")

    def check() -> None:
        storage.write(folder.child("asked"), b"")

    GuardedStorage(storage, check).write(place, b"1", if_absent=True)
    assert storage.read(place) == b"1"


def _nothing_left(place: Location) -> None:
    storage = Storage(allow_local=True)
    with pytest.raises(ObjectNotFound):
        storage.head(place)
    if place.scheme == "s3":
        assert not storage.connection.client.list_multipart_uploads(Bucket=place.bucket).get("Uploads")


def test_what_appeared_after_a_sleep_is_taken_back(
    tmp_path: Path, permission: Permission, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may be stopped right before it renames, and come back when it has lost the permission."""
    rename = os.replace

    def asleep(*args: Any, **options: Any) -> None:
        permission.lost = True
        time.sleep(1.5 * ASKED_LATELY)
        rename(*args, **options)

    monkeypatch.setattr(os, "replace", asleep)
    storage = GuardedStorage(Storage(allow_local=True), permission.check)
    with pytest.raises(OwnershipLost):
        storage.write(Location("", f"{tmp_path}/late".removeprefix("/"), "file"), b"late")
    assert list(tmp_path.iterdir()) == []
