"""One multipart upload: parts are added in order or by number, then it is completed or leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from batch_pipeline.errors import StorageFailed
from batch_pipeline.locations import Location
from batch_pipeline.storage.failures import boto_errors
from batch_pipeline.storage.objects import ObjectInfo
from batch_pipeline.storage.retries import permitted_by

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class Upload:
    """A multipart upload that has been started. `add` and `copy` may run in several threads."""

    def __init__(self, client: S3Client, location: Location) -> None:
        self._client = client
        self._location = location
        self._parts: dict[int, str] = {}
        with boto_errors(location, bucket=location.bucket):
            answer = client.create_multipart_upload(Bucket=location.bucket, Key=location.key)
        self._target: Any = {"Bucket": location.bucket, "Key": location.key, "UploadId": answer["UploadId"]}

    @property
    def count(self) -> int:
        return len(self._parts)

    def add(self, data: bytes, number: int | None = None) -> None:
        """Send a part: the next one, or the one of that number (from 1)."""
        number = number or self.count + 1
        with boto_errors(self._location, bucket=self._location.bucket):
            answer = self._client.upload_part(**self._target, PartNumber=number, Body=data)
        self._parts[number] = answer["ETag"]

    def copy(self, part: ObjectInfo, start: int, end: int, number: int) -> None:
        """Make bytes [start, end) of an object a part, inside the store.

        The source must still have its ETag; Ceph before 18 does not look (it ignores the condition).
        """
        # A ready-made string: botocore does not encode the % of a key it is given as a dict.
        source = f"{part.location.bucket}/{quote(part.location.key)}"
        with boto_errors(part.location, bucket=part.location.bucket):
            answer = self._client.upload_part_copy(
                **self._target,
                PartNumber=number,
                CopySource=source,
                CopySourceRange=f"bytes={start}-{end - 1}",
                CopySourceIfMatch=f'"{part.etag}"',
            )
        self._parts[number] = answer["CopyPartResult"]["ETag"]

    def complete(self) -> str:
        """Make the object appear; return its ETag."""
        parts: Any = [{"PartNumber": number, "ETag": self._parts[number]} for number in sorted(self._parts)]
        with boto_errors(self._location, bucket=self._location.bucket):
            self._client.complete_multipart_upload(**self._target, MultipartUpload={"Parts": parts})
            # Ceph answers no ETag here, so every store is asked.
            answer = self._client.head_object(Bucket=self._location.bucket, Key=self._location.key)
        return answer["ETag"].strip('"')

    def abort(self) -> None:
        """Drop the parts. A store that can't be asked is left with them, invisible, for its lifecycle rule."""
        try:
            # What is dropped nobody could see: that needs no permission.
            with permitted_by(None), boto_errors(self._location, bucket=self._location.bucket):
                self._client.abort_multipart_upload(**self._target)
        except StorageFailed as error:
            import logging

            logging.getLogger(__name__).warning("An unfinished upload was left behind: %s", error)
