"""Model packages on the local disk: each is downloaded, and judged, once for what it holds."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from batch_pipeline.errors import ModelRefused, ObjectNotFound, PreconditionFailed, StorageFailed
from batch_pipeline.locations import Location
from batch_pipeline.models.package import FileInfo
from batch_pipeline.models.status import Inspection, inspect_package

if TYPE_CHECKING:
    from batch_pipeline.storage import ObjectInfo, Storage

_RULES = 5
"""To be raised with every change of what makes a package normal, so that no older judgement is believed."""

_LONGEST_NAME = 1024
"""Bytes of a file's name below its package: a bucket has no longer ones, and a disk's paths end at 4096."""


@dataclass(frozen=True)
class Record:
    """What is known of a package: the judgement and, where it could be read whole, its files."""

    inspection: Inspection
    files: dict[str, FileInfo]


_RECORD = TypeAdapter(Record)


def digest(files: Mapping[str, FileInfo]) -> str:
    """SHA-256 over the names and SHA-256 digests of all files of a package, in hexadecimal digits."""
    content = sorted((name, info.sha256) for name, info in files.items())
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def stamp(objects: Sequence[ObjectInfo]) -> str:
    """SHA-256 over the keys, sizes and ETags of a package's objects, in hexadecimal digits."""
    content = sorted((one.location.key, one.size, one.etag) for one in objects)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class PackageCache:
    """Packages by the digest of their content, and judgements by the ETags they were made from.

    Processes share it: a package appears whole or not at all, and is never changed. Users do not: who may write here
    says which models are run.
    """

    def __init__(self, storage: Storage, folder: Path) -> None:
        self._storage = storage
        self._packages = folder / "packages"
        self._records = folder / "status"

    def record(self, root: Location, objects: Sequence[ObjectInfo]) -> Record:
        """The judgement on the package at `root` with these objects; read from the disk where it was made before."""
        self._keep_private()
        known = self._records / f"{self._key(root, objects)}.json"
        with self._disk_errors(), suppress(FileNotFoundError, ValidationError):
            # What is not there was not judged yet; what cannot be read was written by another version.
            return _RECORD.validate_json(known.read_bytes())
        names = {one.location.key.removeprefix(root.key): one for one in objects}
        unusable = tuple(_unusable(list(names)))
        if unusable:
            return _not_judged(*unusable)
        try:
            files, folder = self._download(names)
        except (ObjectNotFound, PreconditionFailed):
            return _not_judged("the package changed while it was read (it may still be being uploaded)")
        try:
            record = Record(inspect_package(folder), files)
        except OSError as error:
            # Nothing that is written down: the next look may find another disk.
            return _not_judged(f"the package cannot be read: {error}")
        try:
            content = _RECORD.dump_json(record, by_alias=True)
        except PydanticSerializationError:
            return record  # keys nested too deep to be written down; judged anew each time
        with self._disk_errors():
            _write(known, content)
        return record

    def fetch(self, root: Location, files: Mapping[str, FileInfo]) -> Path:
        """The folder that holds exactly these files, their digests verified.

        Raises ModelRefused where the registry no longer holds them.
        """
        self._keep_private()
        folder = self._packages / digest(files)
        if _holds(folder, files):
            return folder
        try:
            found, folder = self._download({name: _object(root, name, info) for name, info in files.items()})
        except (ObjectNotFound, PreconditionFailed) as error:
            raise ModelRefused(f"model: the package {root} changed after it was chosen: {error}") from error
        if digest(found) != digest(files):
            raise ModelRefused(f"model: the package {root} holds other content than when it was judged")
        return folder

    def _download(self, names: Mapping[str, ObjectInfo]) -> tuple[dict[str, FileInfo], Path]:
        files: dict[str, FileInfo] = {}
        with self._scratch() as scratch:
            whole = scratch / "package"
            whole.mkdir()
            for name, found in names.items():
                file = whole / name
                file.parent.mkdir(parents=True, exist_ok=True)
                files[name] = FileInfo(found.size, found.etag, self._copy(found, file))
            folder = self._packages / digest(files)
            if folder.exists() and not _holds(folder, files):
                folder.rename(scratch / "damaged")
            try:
                whole.rename(folder)
            except OSError:
                if not _holds(folder, files):  # else another process was faster
                    raise
        return files, folder

    def _copy(self, found: ObjectInfo, file: Path) -> str:
        sha256 = hashlib.sha256()
        with self._storage.open(found.location, if_match=found.etag) as stream, file.open("wb") as target:
            for chunk in stream:
                sha256.update(chunk)
                target.write(chunk)
        return sha256.hexdigest()

    def _keep_private(self) -> None:
        """Both folders are there, and nobody else may write into them. Raises StorageFailed."""
        with self._disk_errors():
            for folder in (self._packages, self._records):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                status = folder.lstat()
                if status.st_uid == os.geteuid() and stat.S_ISDIR(status.st_mode):
                    if status.st_mode & 0o022:
                        folder.chmod(0o700)
                elif status.st_uid != 0 or status.st_mode & 0o022:
                    what = "belongs to another user, who could put any model into it"
                    raise StorageFailed(f"the cache {folder} {what}; set BATCH_PIPELINE_CACHE to a folder of your own")

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        with self._disk_errors():
            scratch = Path(tempfile.mkdtemp(dir=self._packages, prefix=".part-"))
            try:
                yield scratch
            finally:
                shutil.rmtree(scratch)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageFailed(f"the cache {self._packages.parent} (BATCH_PIPELINE_CACHE) failed: {error}") from error

    @staticmethod
    def _key(root: Location, objects: Sequence[ObjectInfo]) -> str:
        content = sorted((one.location.key, one.size, one.etag) for one in objects)
        judges = [_RULES, *_runtime_versions()]
        return hashlib.sha256(json.dumps([judges, root.uri, content]).encode()).hexdigest()


def _not_judged(*reasons: str) -> Record:
    """Of a package of which nothing could be read."""
    return Record(Inspection(None, None, None, reasons), {})


def _runtime_versions() -> Iterator[str]:
    """What an ONNX file needs depends on the runtime: another one judges anew."""
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            yield importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue


def _unusable(names: Sequence[str]) -> Iterator[str]:
    """Reasons why files of these names cannot stand together in a folder of a disk."""
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    for name in names:
        parts = name.split("/")
        odd = any(part in ("", ".", "..") or len(part.encode()) > 255 or not part.isprintable() for part in parts)
        if odd or name in folders or len(name.encode()) > _LONGEST_NAME:
            yield f"the file name {name!r} cannot be kept on a disk"


def _holds(folder: Path, files: Mapping[str, FileInfo]) -> bool:
    return all((folder / name).is_file() and _sha256(folder / name) == info.sha256 for name, info in files.items())


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _object(root: Location, name: str, info: FileInfo) -> ObjectInfo:
    from datetime import UTC, datetime

    from batch_pipeline.storage import ObjectInfo

    return ObjectInfo(root.child(name), info.size, info.etag, datetime.fromtimestamp(0, UTC))


def _write(file: Path, content: bytes) -> None:
    """Writes a file that other processes see whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".part-")
    with os.fdopen(handle, "wb") as target:
        target.write(content)
    Path(name).replace(file)
