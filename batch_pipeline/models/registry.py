"""The registry of model packages in storage: what it holds, which version a reference means, and pushing to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from batch_pipeline.errors import AccessDenied, ModelRefused, OddName, PreconditionFailed
from batch_pipeline.locations import Location
from batch_pipeline.models.binder import bind
from batch_pipeline.models.binding import Binding
from batch_pipeline.models.onnx_model import OnnxModel
from batch_pipeline.models.package import CONFIG_FILE, Api, FileInfo, OnnxOptions, PackageConfig
from batch_pipeline.models.package_cache import PackageCache, Record, digest, stamp
from batch_pipeline.models.schema import leaves, schema_of
from batch_pipeline.models.status import Inspection
from batch_pipeline.models.versions import is_valid, parse_ref, version_key

if TYPE_CHECKING:
    from batch_pipeline.storage import ObjectInfo, Storage

_CHUNK = 8 * 1024 * 1024


@dataclass(frozen=True)
class ModelVersion:
    """One package of the registry, as it was when it was looked at. Plain data: picklable."""

    name: str
    version: str
    location: Location
    status: Literal["normal", "abnormal"]
    reasons: tuple[str, ...]
    """Everything that makes it abnormal."""
    sha256: str | None
    """Of the ONNX file, in hexadecimal digits; None where there is none."""
    digest: str | None
    """Of the whole package, external data and labels included; None where it could not be read."""
    config: PackageConfig | None
    files: dict[str, FileInfo]
    """By their names below `location`."""
    onnx: OnnxModel | None = None
    labels: tuple[str, ...] | None = None

    @property
    def ref(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(info.size for info in self.files.values())

    @property
    def model_file(self) -> str:
        """The name of the ONNX file below `location`."""
        return (self.config.onnx if self.config else OnnxOptions()).model_file

    @property
    def automatic_learning(self) -> bool:
        return self.config is not None and self.config.automatic_learning

    def api(self, url: str) -> Api:
        """The API at a request path. Raises ModelRefused listing the model's urls."""
        return self._usable()[0].api(url)

    def bind(self, url: str) -> Binding:
        """The API at a request path, bound to the ONNX graph. Raises ModelRefused."""
        config, onnx = self._usable()
        return bind(config, config.api(url), onnx, self.labels)

    def request_schema(self, url: str) -> dict[str, Any]:
        """The schema of a request, with leaves made from the ONNX inputs where the package names none.

        Raises ModelRefused.
        """
        schema = self.api(url).request_schema
        return dict(schema) if schema is not None and leaves(schema) else schema_of(self.bind(url).leaves)

    def _usable(self) -> tuple[PackageConfig, OnnxModel]:
        if self.config is None or self.onnx is None:
            raise ModelRefused(f"model: {self.ref} is not normal: {'; '.join(self.reasons)}")
        return self.config, self.onnx


@dataclass(frozen=True)
class _Package:
    """The objects of a package, and its links that lead out of the registry, none of which is followed."""

    objects: list[ObjectInfo] = field(default_factory=list)
    refused: dict[Location, AccessDenied] = field(default_factory=dict)

    @property
    def stamp(self) -> str:
        """What tells one state of it from another."""
        return ("refused-" if self.refused else "") + stamp(self.objects)


class Registry:
    """The packages under one folder, `<registry>/<name>/<version>/`. Storage's own errors pass through."""

    def __init__(self, storage: Storage, location: Location, cache: Path) -> None:
        self._storage = storage
        self._location = location
        self._cache = PackageCache(storage, cache)

    def names(self) -> tuple[str, ...]:
        """The names of all models."""
        return tuple(sorted({name for name, _ in self._packages()}))

    def models(self) -> list[ModelVersion]:
        """Every version of every model, by name, the oldest version first."""
        packages = self._packages()
        return [self._judge(*key, packages[key]) for key in sorted(packages, key=_order)]

    def stamps(self, ref: str | None = None) -> dict[str, str]:
        """What tells one state of a package from another, by `name:version`; of all, or of that one. Reads no file.

        A folder of the registry that no service can refer to is left out.
        """
        packages = self._packages("" if ref is None else f"{ref.replace(':', '/', 1)}/")
        return {
            f"{name}:{version}": package.stamp
            for (name, version), package in packages.items()
            if is_valid(name, version)
        }

    def show(self, ref: str) -> ModelVersion:
        """The version a reference means, normal or not; for a name alone the newest normal one, else the newest.

        Raises ModelRefused listing what exists.
        """
        name, version = parse_ref(ref)
        if version is not None:
            package = self._package(name, version)
            return self._unknown(name, version) if package is None else self._judge(name, version, package)
        packages = self._packages(f"{name}/")
        newest_first = sorted(packages, key=_order, reverse=True)
        judged = (self._judge(*key, packages[key]) for key in newest_first)
        found = next((one for one in judged if one.status == "normal"), None)
        if found is None and newest_first:
            found = self._judge(*newest_first[0], packages[newest_first[0]])
        return found or self._unknown(name, None)

    def resolve(self, ref: str) -> ModelVersion:
        """The normal version a reference means: `name:version`, or `name` for the newest normal one.

        Raises ModelRefused: listing what exists where there is none, with the recorded reasons where it is not normal.
        """
        found = self.show(ref)
        if found.status == "normal":
            return found
        none = "" if ":" in ref else f"no version of {ref} is normal; "
        raise ModelRefused(f"model: {none}{found.ref} is not normal: {'; '.join(found.reasons)}")

    def push(self, folder: Path, ref: str, *, force: bool = False) -> ModelVersion:
        """Uploads the package in a local folder, config.json last, and judges it.

        What an unfinished push left is replaced; so is a whole version with `force`. Raises ModelRefused, for a link
        out of the folder as well: it may lead to anything that is the pusher's.
        """
        name, version = parse_ref(ref)
        if version is None:
            raise ModelRefused(f"model: {ref!r} names no version; name:version is expected, such as {ref}:1.0.0")
        if not (folder / CONFIG_FILE).is_file():
            raise ModelRefused(f"{folder} is no model package: it has no {CONFIG_FILE}")
        names = [name for name in _files(folder) if name != CONFIG_FILE]
        root = self._root(name, version)
        config = root.child(CONFIG_FILE)
        package = self._package(name, version) or _Package()
        before = [*(one.location for one in package.objects), *package.refused]
        if config in before and not force:
            raise ModelRefused(f"model: {ref} exists; push another version, or replace it with force")
        # Without its config.json the package is unfinished, whatever happens from here on.
        self._storage.delete([config])
        for one in names:
            self._upload(folder / one, root.child(one))
        kept = {root.child(one) for one in names}
        self._storage.delete([one for one in before if one not in kept and one != config])
        try:
            self._storage.write(config, (folder / CONFIG_FILE).read_bytes(), if_absent=True)
        except PreconditionFailed as error:
            raise ModelRefused(f"model: {ref} was pushed by somebody else at the same time") from error
        return self.show(ref)

    def fetch(self, version: ModelVersion) -> Path:
        """The local folder that holds the package, the digest of every file verified. Raises ModelRefused."""
        return self._cache.fetch(version.location, version.files)

    def _root(self, name: str, version: str) -> Location:
        return self._location.child(f"{name}/{version}/")

    def _packages(self, below: str = "") -> dict[tuple[str, str], _Package]:
        """What each package holds; a folder with nothing but its own marker holds nothing.

        A link that leads out of the registry is no reason not to list the others. In the place of a model's own folder
        it stands for a package without a version.
        """
        packages: dict[tuple[str, str], _Package] = {}
        refused: list[tuple[Location, AccessDenied]] = []
        folder = self._location.child(below) if below else self._location

        def note(location: Location, error: AccessDenied | OddName) -> None:
            if isinstance(error, OddName):
                raise error
            refused.append((location, error))

        for found in self._storage.list(folder, refused=note):
            name, version, file = self._parts(found.location)
            if name and version and file is not None:
                objects = packages.setdefault((name, version), _Package()).objects
                if file and not file.endswith("/"):
                    objects.append(found)
        for location, error in refused:
            name, version, file = self._parts(location)
            if location.is_folder or file is not None:
                packages.setdefault((name, version), _Package()).refused[location] = error
        return packages

    def _parts(self, location: Location) -> tuple[str, str, str | None]:
        """Name, version, and the file's name in that package; None where it is not in the folder of a version."""
        name, _, rest = location.key.removeprefix(self._location.key).partition("/")
        version, slash, file = rest.partition("/")
        return name, version, file if slash else None

    def _package(self, name: str, version: str) -> _Package | None:
        return self._packages(f"{name}/{version}/").get((name, version))

    def _judge(self, name: str, version: str, package: _Package) -> ModelVersion:
        root = self._root(name, version)
        record = self._cache.record(root, package.objects) if not package.refused else _unread(package)
        inspection = record.inspection
        reasons = inspection.reasons
        if not is_valid(name, version):
            reasons = (f"{name!r} and {version!r} are no name and version that a service can refer to", *reasons)
        model_file = (inspection.config.onnx if inspection.config else OnnxOptions()).model_file
        return ModelVersion(
            name=name,
            version=version,
            location=root,
            status="abnormal" if reasons else "normal",
            reasons=reasons,
            sha256=record.files[model_file].sha256 if model_file in record.files else None,
            digest=digest(record.files) if record.files else None,
            config=inspection.config,
            files=record.files,
            onnx=inspection.onnx,
            labels=inspection.labels,
        )

    def _unknown(self, name: str, version: str | None) -> ModelVersion:
        versions = sorted((key[1] for key in self._packages(f"{name}/")), key=version_key)
        if versions and version is None:
            its = ", ".join(versions)
            raise ModelRefused(f"model: {name} was listed without a version, and a moment later with {its}; try again")
        if versions:
            raise ModelRefused(f"model: {name} has no version {version}; it has {', '.join(versions)}")
        names = ", ".join(self.names()) or "no models"
        raise ModelRefused(f"model: there is no model {name!r}; the registry {self._location} has {names}")

    def _upload(self, file: Path, target: Location) -> None:
        with file.open("rb") as content, self._storage.open_writer(target) as writer:
            while chunk := content.read(_CHUNK):
                writer.write(chunk)


def _unread(package: _Package) -> Record:
    """Nothing of a package is read that has a link out of the registry."""
    return Record(Inspection(None, None, None, tuple(error.message for error in package.refused.values())), {})


def _order(package: tuple[str, str]) -> tuple[str, Any]:
    return package[0], version_key(package[1])


def _files(folder: Path) -> Iterator[str]:
    """The files of a local package by their names below it; hidden ones are an editor's, not the model's.

    Raises ModelRefused for a link that leads out of it.
    """
    root = os.path.realpath(folder)
    for file in sorted(folder.rglob("*")):
        relative = file.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts):
            continue
        target = os.path.realpath(file)
        if file.is_symlink() and not Path(target).is_relative_to(root):
            raise ModelRefused(
                f"{file} is a link out of the package, to {target}: nothing outside of a package is uploaded with it; "
                "if it belongs there, push a copy of the folder with files in place of links, as `cp -rL` makes it"
            )
        if file.is_file():
            yield relative.as_posix()
