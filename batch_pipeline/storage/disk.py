"""Objects on the local disk, meaning what they mean in a bucket: whole or absent, listed in the order of whole keys."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from batch_pipeline.errors import AccessDenied, NameTaken, OddName, StorageFailed
from batch_pipeline.locations import Location
from batch_pipeline.storage.failures import changed, not_found
from batch_pipeline.storage.objects import CHUNK_BYTES, ObjectInfo, Refusals, Stream, Writer
from batch_pipeline.storage.retries import check_permission

ASKED_LATELY = 0.5
"""Seconds. A permission that was asked for longer ago is asked for again once there is nothing left to wait for."""
_BUFFER = 64 * 1024
"""Bytes. Python would ask the system for two more things to find out how many."""
_UNFINISHED = re.compile(r"\.batch-pipeline-[0-9a-f]{32}\.unfinished")


class Disk:
    """The `file` half of Storage."""

    def head(self, location: Location) -> ObjectInfo:
        with _disk_errors(location):
            return _head(location, _path(location))

    def open(
        self,
        location: Location,
        start: int,
        end: int | None,
        if_match: str | None,
        size: int | None = None,  # noqa: ARG002  a disk says so itself
    ) -> Stream:
        with _disk_errors(location):
            path = _path(location)
            _head(location, path)
            file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0)
        if location.root is not None and not _is_at(path, file.fileno()):
            file.close()
            raise _led_out(location)
        info = _info(location, os.fstat(file.fileno()))
        if if_match is not None and info.etag != if_match:
            file.close()
            raise changed(location)
        stop = info.size if end is None else min(end, info.size)
        return Stream(info.size, info.etag, _chunks(location, file, start, stop), file.close)

    def list(self, folder: Location, start_after: str | None, refused: Refusals | None) -> Iterator[ObjectInfo]:
        with _disk_errors(folder):
            path = _path_or_refusal(folder, refused)
            if path is not None and path.is_dir():
                yield from _walk(path, folder, start_after or "", refused, frozenset())

    def write(self, location: Location, data: bytes, if_absent: bool, if_match: str | None) -> str:
        with _disk_errors(location):
            path = _path(location, itself=not location.is_folder)
            if location.is_folder:
                path.mkdir(parents=True, exist_ok=True)
                return ""
            with _taken_names(location), _started(path, location) as file:
                try:
                    file.write(data)
                    _make_durable(file)
                    return self._publish(file, location, if_absent, if_match)
                finally:
                    Path(file.name).unlink(missing_ok=True)

    def open_writer(self, location: Location) -> Writer:
        return _DiskWriter(self, location)

    def delete(self, locations: Iterable[Location]) -> int:
        count = 0
        for location in locations:
            count += 1
            with _disk_errors(location):
                path = _path(location, itself=True)
                if path.is_symlink() or not path.is_dir():
                    path.unlink(missing_ok=True)
        return count

    def compose(self, target: Location, parts: Sequence[ObjectInfo]) -> ObjectInfo:
        with self.open_writer(target) as writer:
            for part in parts:
                with self.open(part.location, 0, None, part.etag) as stream:
                    for chunk in stream:
                        writer.write(chunk)
        return self.head(target)

    def drop_unfinished(
        self,
        folder: Location,
        is_own: Callable[[Location], bool],  # noqa: ARG002  no such file says what was to become of it
    ) -> int:
        with _disk_errors(folder):
            found = [path for path in _path(folder).rglob(".batch-pipeline-*") if _UNFINISHED.fullmatch(path.name)]
            return sum(_drop(path) for path in found)

    def _publish(self, unfinished: BinaryIO, location: Location, if_absent: bool, if_match: str | None) -> str:
        """Give the finished file its name. A lock on its folder makes the look and the rename one step.

        The permission is asked for before that, as what is asked may write in that folder, and again where it was not
        just now: this process may have been asleep while it waited.
        """
        path, name = _path(location, itself=True), Path(unfinished.name).name
        while True:
            check_permission()
            asked = time.time()
            with _locked(path.parent) as folder:
                led_out = location.root is not None and not _is_at(path.parent, folder)
                other = if_absent and os.path.lexists(path)
                if if_match is not None:
                    other = not path.is_file() or _info(location, path.stat()).etag != if_match
                if abs(time.time() - asked) >= ASKED_LATELY:
                    continue
                if led_out:
                    raise _led_out(location)
                if other:
                    raise changed(location)
                os.replace(name, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            etag = _info(location, os.fstat(unfinished.fileno())).etag
            if abs(time.time() - asked) >= ASKED_LATELY:
                self._permit_or_withdraw(path, location, etag)
            return etag

    def _permit_or_withdraw(self, path: Path, location: Location, etag: str) -> None:
        """For what was asleep right before the rename: nobody can look at the clock and rename in one step."""
        try:
            check_permission()
        except BaseException:
            with suppress(FileNotFoundError), _locked(path.parent):  # gone with its folder, or by itself
                if path.is_file() and _info(location, path.stat()).etag == etag:
                    path.unlink()
            raise


class _DiskWriter(Writer):
    def __init__(self, disk: Disk, location: Location) -> None:
        self._disk = disk
        self._location = location
        with _disk_errors(location), _taken_names(location):
            self._file = _started(_path(location, itself=True), location)

    def _append(self, data: bytes) -> None:
        with _disk_errors(self._location):
            self._file.write(data)

    def _complete(self) -> str:
        with _disk_errors(self._location), _taken_names(self._location):
            _make_durable(self._file)
            etag = self._disk._publish(self._file, self._location, False, None)
            self._file.close()
            return etag

    def _abort(self) -> None:
        with _disk_errors(self._location):
            Path(self._file.name).unlink(missing_ok=True)
            self._file.close()


def _path(location: Location, *, itself: bool = False) -> Path:
    """Where it is on the disk. No link leads out of the folder it was named below; `itself`: it may be one itself."""
    if location.unusable is not None:
        raise StorageFailed(f"{location!r} can't be a local file: {location.unusable[1]}")
    path = f"/{location.key}"
    if location.root is None:
        return Path(path)
    # What is used from here on has no link in it. Where one is put in its place later, `_is_at` tells.
    folder, _, name = path.rstrip("/").rpartition("/")
    real = f"{_without_links(f'{folder}/')}/{name}" if itself else _without_links(path)
    if not f"{real}/".startswith(f"{_without_links(f'/{location.root}')}/"):
        raise _led_out(location)
    return Path(real or "/")


def _without_links(path: str) -> str:
    """As os.path.realpath has it, which asks for each folder on the way, but for a `/` at the end, which is left out.

    Linux says it of an open file at once. That is believed where it is what was asked for: what it says of others may
    have links in it, or be a text like `x (deleted)`.
    """
    plain = path.rstrip("/")
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, AttributeError):  # it is not there, or this is no Linux
        return os.path.realpath(path).rstrip("/")
    try:
        if os.readlink(f"/proc/self/fd/{handle}").rstrip("/") == plain:  # noqa: PTH115  a Path takes longer than all else
            return plain
    except FileNotFoundError:
        pass
    finally:
        os.close(handle)
    return os.path.realpath(path).rstrip("/")


def _led_out(location: Location) -> AccessDenied:
    return AccessDenied(f"{location} leads through a link out of the folder /{location.root}, and is not followed")


def _is_at(path: Path, handle: int) -> bool:
    """Whether an open file or folder is the one at this path without links, and none that a link led to a moment ago.

    True where the system does not say (it has no /proc).
    """
    try:
        there = str(Path(f"/proc/self/fd/{handle}").readlink())
    except FileNotFoundError:
        return True
    return there in (str(path), f"{path} (deleted)")  # as one is that was written over meanwhile


def _head(location: Location, path: Path) -> ObjectInfo:
    """A device or a pipe, which may never end, and may never begin, is no object."""
    status = path.stat()
    if location.is_folder or not stat.S_ISREG(status.st_mode):
        raise not_found(location)
    return _info(location, status)


def _path_or_refusal(location: Location, refused: Refusals | None) -> Path | None:
    """None where a link leads out and `refused`, which was told so, is to make something of it."""
    try:
        return _path(location)
    except AccessDenied as error:
        if refused is None:
            raise
        refused(location, error)
        return None


def _info(location: Location, status: os.stat_result) -> ObjectInfo:
    """The ETag changes with every write: a write makes a new file (inode), and its time is of nanoseconds."""
    etag = f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
    return ObjectInfo(location, status.st_size, etag, datetime.fromtimestamp(status.st_mtime, UTC))


def _chunks(location: Location, file: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    with _disk_errors(location):
        file.seek(start)
        while start < stop:
            chunk = file.read(min(CHUNK_BYTES, stop - start))
            if not chunk:
                raise changed(location)
            start += len(chunk)
            yield chunk


def _walk(
    path: Path, folder: Location, after: str, refused: Refusals | None, above: frozenset[tuple[int, int]]
) -> Iterator[ObjectInfo]:
    """Depth first, a folder sorted as its name with `/`: that is the order of whole keys. Rings of links end."""
    status = path.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for child, real in sorted(_children(path, folder, refused), key=lambda child: child[0].key.encode()):
        if child.is_folder:
            if child.key > after or after.startswith(child.key):
                yield from _walk(real, child, after, refused, above | {here})
        elif child.key.encode() > after.encode():
            # A file that is deleted while its folder is listed is no longer in it.
            try:
                found = _info(child, real.stat())
            except FileNotFoundError:
                continue
            yield found


def _children(path: Path, folder: Location, refused: Refusals | None) -> Iterator[tuple[Location, Path]]:
    with os.scandir(path) as entries:
        for entry in entries:
            if _UNFINISHED.fullmatch(entry.name):
                continue
            if any(0xDC80 <= ord(char) <= 0xDCFF for char in entry.name):
                error = OddName(f"{folder}: a name is not UTF-8: {os.fsencode(entry.name)!r}")
                if refused is None:
                    raise error
                refused(folder.child(f"{entry.name}/" if entry.is_dir() else entry.name), error)
            elif entry.is_dir() or entry.is_file():
                child = folder.child(f"{entry.name}/" if entry.is_dir() else entry.name)
                real = _path_or_refusal(child, refused) if entry.is_symlink() else path / entry.name
                if real is not None:
                    yield child, real


def _started(path: Path, location: Location) -> BinaryIO:
    """The hidden file that is to become `path`. Its lock ends with its writer, however that ends, and tells of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        unfinished = path.parent / f".batch-pipeline-{uuid4().hex}.unfinished"
        file = unfinished.open("xb", buffering=_BUFFER)
        if location.root is not None and not _is_at(unfinished, file.fileno()):
            Path(f"/proc/self/fd/{file.fileno()}").resolve().unlink()
            file.close()
            raise _led_out(location)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # taken for a dead writer's before it was locked


def _drop(unfinished: Path) -> bool:
    """Removes the file if its writer is dead. What was finished meanwhile has another name."""
    try:
        if not stat.S_ISREG(unfinished.lstat().st_mode):
            return False  # no writer of ours made it
        with unfinished.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unfinished.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


def _make_durable(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _disk_errors(location: Location) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise not_found(location) from error
    except PermissionError as error:
        raise AccessDenied(f"{location}: this user may not do that; check the permissions") from error
    except OSError as error:
        raise StorageFailed(f"{location}: {error.strerror or error}") from error


@contextmanager
def _taken_names(location: Location) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise NameTaken(f"{location}: a folder stands in its place, or a file in that of its folder") from error
