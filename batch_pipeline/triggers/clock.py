"""What time it is where objects get their times: by the store's own clock, since ours may be another."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage


def store_time(storage: Storage, folder: Location) -> datetime:
    """The store's time, to the second, for one cheap request; this machine's where the store does not say."""
    if folder.scheme != "s3":
        return datetime.now(UTC)
    from batch_pipeline.storage.failures import boto_errors

    # Whoever may list the folder may ask this; to ask for the bucket's head may take more.
    with boto_errors(f"bucket {folder.bucket}", bucket=folder.bucket):
        answer = storage.connection.client.list_objects_v2(Bucket=folder.bucket, Prefix=folder.key, MaxKeys=1)
    try:
        said = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"].get("date", ""))
    except ValueError:
        return datetime.now(UTC)
    return said if said.tzinfo else said.replace(tzinfo=UTC)
