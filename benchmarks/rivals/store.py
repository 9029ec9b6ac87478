"""The bucket, as the environment's AWS_* variables lead to it."""

from __future__ import annotations

import os

import obstore
from obstore.store import S3Store


def bucket(name: str) -> S3Store:
    endpoint = os.environ["AWS_ENDPOINT_URL_S3"]
    return S3Store(name, endpoint=endpoint, client_options={"allow_http": True, "timeout": "120s"})


def names(store: S3Store, folder: str) -> list[str]:
    """The names of the objects below a folder, in order."""
    found = [info["path"] for batch in obstore.list(store, folder) for info in batch]
    return sorted(path.removeprefix(folder) for path in found)
