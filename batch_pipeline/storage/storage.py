"""The one way to read and write objects; it sends each location to the bucket or the disk it lives on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from batch_pipeline.errors import AccessDenied, ObjectNotFound, StorageFailed
from batch_pipeline.locations import Location
from batch_pipeline.storage.objects import ObjectInfo, Refusals, Stream, Writer
from batch_pipeline.storage.timeouts import USUAL, Timeouts

if TYPE_CHECKING:
    from batch_pipeline.storage.connection import Connection


class Backend(Protocol):
    """What a kind of store can do. Same meaning, same errors, for all of them."""

    def head(self, location: Location) -> ObjectInfo: ...
    def open(
        self, location: Location, start: int, end: int | None, if_match: str | None, size: int | None = None
    ) -> Stream: ...
    def list(self, folder: Location, start_after: str | None, refused: Refusals | None) -> Iterator[ObjectInfo]: ...
    def write(self, location: Location, data: bytes, if_absent: bool, if_match: str | None) -> str: ...
    def open_writer(self, location: Location) -> Writer: ...
    def delete(self, locations: Iterable[Location]) -> int: ...
    def compose(self, target: Location, parts: Sequence[ObjectInfo]) -> ObjectInfo: ...
    def drop_unfinished(self, folder: Location, is_own: Callable[[Location], bool]) -> int: ...


class Storage:
    """Objects in buckets and, where allowed, on the local disk. Safe for several threads; connects on first use.

    Credentials, endpoint, profile and region come from where boto3 takes them (environment, files, roles).
    Every method raises ObjectNotFound, AccessDenied, PreconditionFailed or, for all else, StorageFailed.
    """

    def __init__(self, *, allow_local: bool = False, timeouts: Timeouts = USUAL) -> None:
        self.allow_local = allow_local
        self.timeouts = timeouts

    def head(self, location: Location) -> ObjectInfo:
        """Size, ETag and time of an object. Raises ObjectNotFound."""
        return self._backend(location).head(location)

    def exists(self, location: Location) -> bool:
        """Whether the object is there. A refused or unreachable store is an error, not a no."""
        try:
            self.head(location)
        except ObjectNotFound:
            return False
        return True

    def read(
        self, location: Location, start: int | None = None, end: int | None = None, if_match: str | None = None
    ) -> bytes:
        """The bytes [start, end) of an object, fewer where it is shorter, as a slice would be."""
        with self.open(location, start or 0, end, if_match) as stream:
            return stream.read()

    def open(
        self,
        location: Location,
        start: int = 0,
        end: int | None = None,
        if_match: str | None = None,
        *,
        size: int | None = None,
    ) -> Stream:
        """Read the bytes [start, end) in chunks. With `if_match`, PreconditionFailed if its ETag is another.

        `size`: that of the version `if_match`. A small object of which it is known is cheaper for a store to send.
        """
        return self._backend(location).open(location, start, end, if_match, size)

    def list(
        self, folder: Location, start_after: str | None = None, *, refused: Refusals | None = None
    ) -> Iterator[ObjectInfo]:
        """Every object below a folder, in the order of its key's UTF-8 bytes, from after the key `start_after`.

        A link on the local disk that leads out of the folder is AccessDenied, a name there that is not UTF-8 is OddName
        (its location has the bytes as os.fsdecode has them); with `refused`, that is told of it, before anything that
        comes after it in order, and the listing goes on without it.

        An empty or missing folder yields nothing; a missing bucket is ObjectNotFound. Folder markers (keys that end
        in `/`) are objects too, and are yielded.
        """
        if not folder.is_folder:
            raise ValueError(f"{folder} is no folder: it must end in '/'")
        return self._backend(folder).list(folder, start_after, refused)

    def write(self, location: Location, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write an object whole and return its ETag; atomically only if absent, or only over the ETag `if_match`.

        PreconditionFailed says the object is another's. As an answer can get lost on the way, it may rarely be
        one's own: whoever must know reads the object back.
        """
        if if_absent and if_match is not None:
            raise ValueError("a write is either if_absent or if_match, not both")
        return self._backend(location).write(location, data, if_absent, if_match)

    def open_writer(self, location: Location) -> Writer:
        """Write an object piece by piece; it appears when the `with` block ends without an exception."""
        return self._backend(location).open_writer(location)

    def delete(self, locations: Iterable[Location]) -> int:
        """Delete objects and return how many were asked for. One that is not there is no error."""
        return sum(self._backend(batch[0]).delete(batch) for batch in _by_store(locations))

    def compose(self, target: Location, parts: Sequence[ObjectInfo | Location]) -> ObjectInfo:
        """Make `target` of the parts' bytes, in order, copied inside the store. No bytes at all make an empty object.

        Only parts under 5 MiB, and at most 5 MiB at the head of a part that follows one, pass through here.
        Raises PreconditionFailed where a part given as ObjectInfo has been replaced since, as far as the store looks:
        Ceph takes a part of 5 MiB and more as it then is.
        """
        infos = [part if isinstance(part, ObjectInfo) else self.head(part) for part in parts]
        if any(info.location.scheme != target.scheme for info in infos):
            raise StorageFailed(f"{target} can't be composed of objects of another store")
        return self._backend(target).compose(target, infos)

    def drop_unfinished(self, folder: Location, is_own: Callable[[Location], bool]) -> int:
        """Drop what writers that were killed left below a folder, invisible; return how many.

        In a bucket, what was to become an object that `is_own`, at which no writer may be at work: `is_own` is asked of
        each upload that is found. On the local disk, where it does not show what was to become of it, all that has no
        living writer. A store that does not let it be done keeps it, for its lifecycle rule.
        """
        return self._backend(folder).drop_unfinished(folder, is_own)

    def _backend(self, location: Location) -> Backend:
        if location.scheme == "s3":
            return self._buckets
        if not self.allow_local:
            raise AccessDenied(f"{location} is a local file, which this deployment does not allow")
        return self._disk

    @cached_property
    def _disk(self) -> Backend:
        from batch_pipeline.storage.disk import Disk

        return Disk()

    @cached_property
    def _buckets(self) -> Backend:
        from batch_pipeline.storage.buckets import Buckets

        return Buckets(self.connection)

    @cached_property
    def connection(self) -> Connection:
        """The clients behind `s3`; for this package and for what must sign or subscribe."""
        from batch_pipeline.storage.connection import Connection

        return Connection(self.timeouts)

    def __getstate__(self) -> dict[str, object]:
        return {"allow_local": self.allow_local, "timeouts": self.timeouts}


def _by_store(locations: Iterable[Location], size: int = 1000) -> Iterator[list[Location]]:
    """The locations in batches of one bucket (or the disk) each, in order, never all of them at once."""
    batch: list[Location] = []
    for location in locations:
        if batch and (len(batch) == size or (location.scheme, location.bucket) != (batch[0].scheme, batch[0].bucket)):
            yield batch
            batch = []
        batch.append(location)
    if batch:
        yield batch
