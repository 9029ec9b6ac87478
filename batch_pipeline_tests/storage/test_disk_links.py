"""Links on the local disk, devices and pipes: nothing is read or written through one that leads out of its folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from batch_pipeline.errors import AccessDenied, ObjectNotFound, OutputRefused, StorageFailed
from batch_pipeline.layout import OutputLayout
from batch_pipeline.locations import Location, parse_folder, parse_location
from batch_pipeline.output_folder import inspect
from batch_pipeline.storage import Storage


@pytest.fixture
def disk() -> Storage:
    return Storage(allow_local=True)


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("SECRET")
    (tmp_path / "inside").mkdir()
    return tmp_path / "inside"


def at(path: Path) -> Location:
    return parse_folder(f"file://{path}", allow_local=True)


@pytest.mark.parametrize("target", ["../outside/secret", "../outside", "/etc/passwd", "/"])
def test_a_folder_with_a_link_out_of_it_is_not_listed(disk: Storage, inside: Path, target: str) -> None:
    (inside / "link").symlink_to(target)
    with pytest.raises(AccessDenied, match="link"):
        list(disk.list(at(inside)))
    with pytest.raises((AccessDenied, OutputRefused)):
        inspect(disk, OutputLayout(at(inside)), "service")


def test_a_listing_can_go_on_without_the_links_that_lead_out(disk: Storage, inside: Path) -> None:
    for name, target in {"a": "/", "b": "../outside/secret", "c/d": "../../outside"}.items():
        (inside / name).parent.mkdir(exist_ok=True)
        (inside / name).symlink_to(target)
    (inside / "c/e").write_text("e")
    refused: list[str] = []
    found = disk.list(at(inside), refused=lambda place, error: refused.append(place.uri))
    assert [one.location.name for one in found] == ["e"]
    assert sorted(refused) == [at(inside).child(name).uri for name in ("a/", "b", "c/d/")]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system has no /proc")
def test_what_the_system_says_of_a_deleted_place_is_not_taken_for_another(disk: Storage, inside: Path) -> None:
    """/proc calls it `x (deleted)`, which may be the name of something else."""
    (inside / "x").mkdir()
    handle = os.open(inside / "x", os.O_RDONLY)
    try:
        (inside / "x").rmdir()
        (inside / "x (deleted)").symlink_to("../outside")
        (inside / "link").symlink_to(f"/proc/{os.getpid()}/fd/{handle}")
        secret = at(inside).child("link/secret")
        for look in (disk.head, disk.read, lambda place: disk.delete([place])):
            with pytest.raises(AccessDenied):
                look(secret)
        with pytest.raises(AccessDenied):
            list(disk.list(at(inside).child("link/")))
    finally:
        os.close(handle)
    assert (inside.parent / "outside/secret").exists()


SWAPPING = """
import ctypes, sys
swap, exchange = ctypes.CDLL(None).renameat2, 2
one, other = (path.encode() for path in sys.argv[1:])
while True:
    swap(-100, one, -100, other, exchange)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="two names are exchanged at once on Linux alone")
def test_a_link_that_takes_a_folders_place_meanwhile_leads_nowhere(disk: Storage, inside: Path) -> None:
    """Another process exchanges the folder for a link all the time."""
    (inside / "folder").mkdir()
    (inside / "folder/secret").write_text("public")
    (inside / "link").symlink_to(inside.parent / "outside")
    where = at(inside).child("folder/")
    swapping = subprocess.Popen([sys.executable, "-c", SWAPPING, inside / "folder", inside / "link"])
    try:
        read: set[bytes] = set()
        until = time.monotonic() + 4
        while time.monotonic() < until:
            with suppress(StorageFailed):
                read.add(disk.read(where.child("secret")))
            with suppress(StorageFailed):
                disk.write(where.child("result"), b"result")
    finally:
        swapping.kill()
        swapping.wait()
    assert read == {b"public"}
    assert [path.name for path in (inside.parent / "outside").iterdir()] == ["secret"]


def test_links_within_a_folder_are_followed(disk: Storage, inside: Path) -> None:
    (inside / "a").mkdir()
    (inside / "a/x").write_text("x")
    (inside / "b").symlink_to("a")
    (inside / "y").symlink_to("a/x")
    listed = list(disk.list(at(inside)))
    assert [one.location.key.removeprefix(f"{inside}/"[1:]) for one in listed] == ["a/x", "b/x", "y"]
    assert [disk.read(one.location) for one in listed] == [b"x"] * 3


def test_the_folder_itself_may_be_reached_through_a_link(disk: Storage, inside: Path) -> None:
    (inside / "x").write_text("x")
    link = inside.with_name("link")
    link.symlink_to(inside)
    (found,) = disk.list(at(link))
    assert disk.read(found.location) == b"x"
    disk.write(at(link).child("new"), b"new")
    assert (inside / "new").read_bytes() == b"new"


def test_a_link_put_in_a_files_place_after_the_listing_is_not_read(disk: Storage, inside: Path) -> None:
    (inside / "a").mkdir()
    (inside / "a/secret").write_text("mine")
    (found,) = disk.list(at(inside))
    (inside / "a").rename(inside / "b")
    (inside / "a").symlink_to("../outside")
    for read in (disk.read, disk.head):
        with pytest.raises(AccessDenied):
            read(found.location)


def test_nothing_is_written_or_deleted_through_a_link_out_of_the_folder(disk: Storage, inside: Path) -> None:
    (inside / "infer-result").symlink_to("../outside")
    result = OutputLayout(at(inside)).result("a/secret_result.txt")
    writes = (
        lambda: disk.write(result, b"x"),
        lambda: disk.open_writer(result),
        lambda: disk.delete([OutputLayout(at(inside)).result("secret")]),
        lambda: disk.compose(result, []),
    )
    for write in writes:
        with pytest.raises(AccessDenied):
            write()
    assert sorted(path.name for path in (inside.parent / "outside").iterdir()) == ["secret"]


def test_a_folder_swapped_for_a_link_while_a_result_is_written(disk: Storage, inside: Path) -> None:
    result = OutputLayout(at(inside)).result("x")
    writer = disk.open_writer(result)
    writer.write(b"x")
    (inside / "infer-result").rename(inside / "moved")
    (inside / "infer-result").symlink_to("../outside")
    with pytest.raises(AccessDenied):
        writer.__exit__(None, None, None)
    assert sorted(path.name for path in (inside.parent / "outside").iterdir()) == ["secret"]


def test_a_link_in_a_results_place_is_replaced_not_followed(disk: Storage, inside: Path) -> None:
    (inside / "infer-result").mkdir()
    (inside / "infer-result/x").symlink_to("../../outside/secret")
    result = OutputLayout(at(inside)).result("x")
    disk.write(result, b"mine")
    assert disk.read(result) == b"mine"
    (inside / "infer-result/x").unlink()
    (inside / "infer-result/x").symlink_to("../../outside")
    disk.delete([result])
    assert not os.path.lexists(inside / "infer-result/x")
    assert (inside.parent / "outside/secret").read_text() == "SECRET"


def test_pipes_and_devices_are_no_objects(disk: Storage, inside: Path) -> None:
    os.mkfifo(inside / "pipe")
    for place in (f"file://{inside}/pipe", "file:///dev/zero", "file:///dev/stdin"):
        with pytest.raises(ObjectNotFound):
            disk.read(parse_location(place, allow_local=True))
    assert list(disk.list(at(inside))) == []


@pytest.mark.parametrize("key", ["../x", "a/../../x", "a//x", "./x", "\0", "x" * 256, "/".join(["x" * 200] * 21)])
def test_names_that_mean_something_else_on_a_disk(disk: Storage, inside: Path, key: str) -> None:
    for act in (disk.head, lambda one: disk.write(one, b""), lambda one: disk.delete([one])):
        with pytest.raises(StorageFailed, match="can't be a local file"):
            act(at(inside).child(key))
