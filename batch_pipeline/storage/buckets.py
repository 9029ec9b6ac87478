"""Objects in buckets: data through obstore; listings, conditions and keys that obstore refuses through boto3."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from batch_pipeline.errors import ObjectNotFound, PreconditionFailed, StorageFailed, StorageRefused
from batch_pipeline.locations import Location
from batch_pipeline.storage.connection import Connection
from batch_pipeline.storage.failures import boto_errors, changed, obstore_errors
from batch_pipeline.storage.objects import CHUNK_BYTES, ObjectInfo, Refusals, Stream, Writer
from batch_pipeline.storage.retries import persistent
from batch_pipeline.storage.uploads import Upload

if TYPE_CHECKING:
    from obstore.store import S3Store

_log = logging.getLogger(__name__)

_LARGE = 2**20
"""Bytes. obstore wants an answer so and so long after it began to send, whatever the line; boto3 waits for each piece
of it."""
_BEGINNING = 2 * 2**20
"""Bytes of a large object that are asked for first, so that work on them can begin while the rest is on its way."""
_ODD = re.compile(r"[\x00-\x1f\x7f]|//|^/|/$|(?:^|/)\.{1,2}(?:/|$)")
_NOT_IN_XML = re.compile("[\x00-\x1f\x7f\ufffe\uffff]")


class Buckets:
    """The `s3` half of Storage."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._bare_etags = False
        """Whether the store compares If-Match with the quotes, as Ceph before 18 does: with them it never fits."""

    def head(self, location: Location) -> ObjectInfo:
        with boto_errors(location, bucket=location.bucket):
            answer = self._connection.client.head_object(Bucket=location.bucket, Key=location.key)
        return ObjectInfo(location, answer["ContentLength"], answer["ETag"].strip('"'), answer["LastModified"])

    def open(
        self, location: Location, start: int, end: int | None, if_match: str | None, size: int | None = None
    ) -> Stream:
        if (start, end) == (0, None) and if_match is not None and size is not None and size <= CHUNK_BYTES:
            size, etag, first = self._get(location, 0, None, if_match)
        else:
            size, etag, first = self._first(location, start, end, if_match, _first_bytes(start, end, size))
        stop = size if end is None else min(end, size)
        return Stream(size, etag, self._chunks(location, first, start, stop, etag))

    def list(
        self,
        folder: Location,
        start_after: str | None,
        refused: Refusals | None,  # noqa: ARG002  a bucket has no links
    ) -> Iterator[ObjectInfo]:
        for page in self._pages(folder, start_after):
            for found in page.get("Contents", ()):
                location = Location(folder.bucket, found["Key"])
                yield ObjectInfo(location, found["Size"], found["ETag"].strip('"'), found["LastModified"])

    def write(self, location: Location, data: bytes, if_absent: bool, if_match: str | None) -> str:
        if if_match is not None:
            return self._replace(location, data, if_match)
        if if_absent:
            return self._put(location, data, {"IfNoneMatch": "*"})
        if len(data) > _LARGE or _ODD.search(location.key) or not location.key:
            return self._put(location, data, {})
        return persistent(lambda: self._put_plain(location, data), self._connection.attempts)

    def open_writer(self, location: Location) -> Writer:
        return _BucketWriter(self, location)

    def delete(self, locations: Iterable[Location]) -> int:
        """Delete objects of one bucket, at most 1000."""
        wanted = tuple(locations)
        odd = [location for location in wanted if _NOT_IN_XML.search(location.key)]
        plain = [location for location in wanted if not _NOT_IN_XML.search(location.key)]
        for location in odd:
            with boto_errors(location, bucket=location.bucket):
                self._connection.client.delete_object(Bucket=location.bucket, Key=location.key)
        if plain:
            self._delete_plain(plain)
        return len(plain) + len(odd)

    def compose(self, target: Location, parts: Sequence[ObjectInfo]) -> ObjectInfo:
        from batch_pipeline.storage.composing import compose

        return compose(self, target, parts)

    def drop_unfinished(self, folder: Location, is_own: Callable[[Location], bool]) -> int:
        dropped = 0
        try:
            with boto_errors(folder, bucket=folder.bucket):
                for key, upload in self._unfinished(folder):
                    dropped += self._abort(folder.bucket, key, upload, is_own)
        except StorageFailed as error:
            _log.warning("Unfinished uploads may be left in %s: %s", folder, error.message)
        return dropped

    def _unfinished(self, folder: Location) -> Iterator[tuple[str, str]]:
        """Keys, encoded if the store does so, and ids of uploads, page by page."""
        after: Any = {}
        asked: list[Any] = []
        while after not in asked:  # as it is where a store does not know the markers
            asked.append(after)
            page = self._connection.client.list_multipart_uploads(
                Bucket=folder.bucket,
                Prefix=folder.key,
                EncodingType="url",  # XML has no room for every character of a key
                **after,
            )
            found = [(one["Key"], one["UploadId"]) for one in page.get("Uploads", ())]
            yield from found
            if not found or not page.get("IsTruncated"):
                return
            after = {"KeyMarker": unquote(found[-1][0]), "UploadIdMarker": found[-1][1]}

    def _abort(self, bucket: str, key: str, upload: str, is_own: Callable[[Location], bool]) -> bool:
        """Whether it was there, and is to be dropped."""
        client = self._connection.client
        for spelling in dict.fromkeys((unquote(key), key)):
            if is_own(Location(bucket, spelling)):
                with suppress(client.exceptions.NoSuchUpload):
                    client.abort_multipart_upload(Bucket=bucket, Key=spelling, UploadId=upload)
                    return True
        return False

    def start_upload(self, location: Location) -> Upload:
        return Upload(self._connection.client, location)

    def _first(
        self, location: Location, start: int, end: int | None, if_match: str | None, most: int
    ) -> tuple[int, str, bytes]:
        """Size, ETag and first chunk, of at most so many bytes; a small object costs this one request."""
        stop = start + most if end is None else min(end, start + most)
        if stop <= start:
            info = self.head(location)
            return _matching(info, if_match).size, info.etag, b""
        try:
            return self._get(location, start, stop, if_match)
        except StorageRefused as error:
            if "InvalidRange" not in str(error):
                raise
            info = _matching(self.head(location), if_match)
            if start < info.size:
                raise
            return info.size, info.etag, b""

    def _get(self, location: Location, start: int, end: int | None, if_match: str | None) -> tuple[int, str, bytes]:
        """The bytes [start, end) of an object, its whole size and ETag. A body that breaks off is asked for again.

        None is the end of a small object. Some stores take longer for a range, be it of all there is.
        """
        get = self._get_odd if _ODD.search(location.key) else self._get_plain

        def whole() -> tuple[int, str, bytes]:
            size, etag, data = get(location, start, end, if_match)
            if if_match is not None and etag != if_match:
                # A store that does not know the condition.
                raise changed(location)
            stop = size if end is None else min(end, size)
            if len(data) != stop - start:
                raise StorageFailed(f"{location}: the object store answered {len(data)} bytes of [{start}, {stop})")
            return size, etag, data

        return persistent(whole, self._connection.attempts)

    def _get_plain(
        self, location: Location, start: int, end: int | None, if_match: str | None
    ) -> tuple[int, str, bytes]:
        import obstore

        with obstore_errors(location, bucket=location.bucket):
            options: Any = {} if end is None else {"range": (start, end)}
            if if_match is not None:
                options["if_match"] = f'"{if_match}"'
            found = obstore.get(self._store(location), location.key, options=options)
            size = found.meta["size"]
            if end is None and size > CHUNK_BYTES:
                raise changed(location)
            return size, (found.meta["e_tag"] or "").strip('"'), bytes(found.bytes())

    def _get_odd(self, location: Location, start: int, end: int | None, if_match: str | None) -> tuple[int, str, bytes]:
        wanted: Any = {} if if_match is None else {"IfMatch": f'"{if_match}"'}
        if end is not None:
            wanted["Range"] = f"bytes={start}-{end - 1}"
        with boto_errors(location, bucket=location.bucket):
            found = self._connection.client.get_object(Bucket=location.bucket, Key=location.key, **wanted)
            size = found["ContentLength"] if end is None else int(found["ContentRange"].rpartition("/")[2])
            if end is None and size > CHUNK_BYTES:
                raise changed(location)
            return size, found["ETag"].strip('"'), found["Body"].read()

    def _chunks(self, location: Location, first: bytes, start: int, stop: int, etag: str) -> Iterator[bytes]:
        """Range after range, not one long answer: a slow reader holds no connection open and no buffer fills."""
        position = start + len(first)
        if first:
            yield first
        del first
        while position < stop:
            _, _, chunk = self._get(location, position, min(position + CHUNK_BYTES, stop), etag)
            position += len(chunk)
            yield chunk

    def _pages(self, folder: Location, start_after: str | None) -> Iterator[Any]:
        """From the third on each is asked for while the one before it is read. Who wants no more than a few keys asks
        for no page that he does not come to."""
        after: Any = {} if start_after is None else {"StartAfter": start_after}
        paginator = self._connection.client.get_paginator("list_objects_v2")
        pages = iter(paginator.paginate(Bucket=folder.bucket, Prefix=folder.key, **after))

        def next_page() -> Any:
            with boto_errors(f"bucket {folder.bucket}", bucket=folder.bucket):
                return next(pages, None)

        for _ in range(2):
            if (page := next_page()) is None:
                return
            yield page
        with ThreadPoolExecutor(1, thread_name_prefix="list") as pool:
            page = next_page()
            while page is not None:
                coming = pool.submit(next_page)
                yield page
                page = coming.result()

    def _put(self, location: Location, data: bytes, conditions: dict[str, str]) -> str:
        with boto_errors(location, bucket=location.bucket):
            options: Any = conditions
            answer = self._connection.client.put_object(Bucket=location.bucket, Key=location.key, Body=data, **options)
        return answer["ETag"].strip('"')

    def _put_plain(self, location: Location, data: bytes) -> str:
        import obstore

        with obstore_errors(location, bucket=location.bucket, conditional=False):
            answer = obstore.put(self._store(location), location.key, data, use_multipart=False)
        return (answer["e_tag"] or "").strip('"')

    def _replace(self, location: Location, data: bytes, etag: str) -> str:
        """Write over the version `etag`. Where the object still is that version and yet the store says no, it wants
        the bare ETag, which it judges just as atomically.
        """
        try:
            return self._put(location, data, {"IfMatch": etag if self._bare_etags else f'"{etag}"'})
        except ObjectNotFound:
            raise changed(location) from None
        except PreconditionFailed:
            if self._bare_etags or not self._is_still(location, etag):
                raise
        written = self._put(location, data, {"IfMatch": etag})
        self._bare_etags = True
        return written

    def _is_still(self, location: Location, etag: str) -> bool:
        try:
            return self.head(location).etag == etag
        except ObjectNotFound:
            return False

    def _delete_plain(self, locations: Sequence[Location]) -> None:
        bucket = locations[0].bucket
        with boto_errors(f"bucket {bucket}", bucket=bucket):
            answer = self._connection.client.delete_objects(
                Bucket=bucket, Delete={"Objects": [{"Key": location.key} for location in locations], "Quiet": True}
            )
        for error in answer.get("Errors", ()):
            if error.get("Code") != "NoSuchKey":
                raise StorageFailed(f"{Location(bucket, error.get('Key', ''))} can't be deleted: {error.get('Code')}")

    def _store(self, location: Location) -> S3Store:
        return self._connection.store(location.bucket)


class _BucketWriter(Writer):
    """Holds what is not yet a part; a small object is written with one request, a large one in parts."""

    def __init__(self, buckets: Buckets, location: Location) -> None:
        self._buckets = buckets
        self._location = location
        self._held = bytearray()
        self._upload: Upload | None = None

    def _append(self, data: bytes) -> None:
        self._held += data
        while len(self._held) >= self._part_bytes:
            self._upload = self._upload or self._buckets.start_upload(self._location)
            size = self._part_bytes
            self._upload.add(bytes(self._held[:size]))
            del self._held[:size]

    @property
    def _part_bytes(self) -> int:
        """Parts grow, since an upload may have 10,000 at most: enough for 400 GiB."""
        return CHUNK_BYTES * (1 + (self._upload.count // 1000 if self._upload else 0))

    def _complete(self) -> str:
        if self._upload is None:
            return self._buckets.write(self._location, bytes(self._held), False, None)
        if self._held:
            self._upload.add(bytes(self._held))
        return self._upload.complete()

    def _abort(self) -> None:
        if self._upload is not None:
            self._upload.abort()


def _first_bytes(start: int, end: int | None, size: int | None) -> int:
    """How much of the bytes [start, end) of an object of this size to ask for first."""
    if size is None:
        return CHUNK_BYTES
    wanted = (size if end is None else min(end, size)) - start
    return _BEGINNING if wanted > CHUNK_BYTES else CHUNK_BYTES


def _matching(info: ObjectInfo, etag: str | None) -> ObjectInfo:
    if etag is not None and info.etag != etag:
        raise changed(info.location)
    return info
