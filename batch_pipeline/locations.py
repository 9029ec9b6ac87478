"""Where things are: the texts a user may write for a folder, an object or a share link, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, order=True)
class Location:
    """An object or a folder in a bucket (`s3`) or on the local disk (`file`).

    `key` is the exact object key, never percent-encoded. A folder's key is empty or ends in `/`. For `file`,
    `bucket` is empty and `key` is the absolute path without its leading `/`.
    """

    bucket: str
    key: str
    scheme: Literal["s3", "file"] = "s3"

    @property
    def uri(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        """The file name: what follows the last `/`."""
        return self.key.rpartition("/")[2]

    @property
    def is_folder(self) -> bool:
        return not self.key or self.key.endswith("/")

    def child(self, relative: str) -> Location:
        """The object at `relative` below this folder."""
        return Location(self.bucket, self.key + relative, self.scheme)

    def __str__(self) -> str:
        return self.uri


@dataclass(frozen=True)
class ShareLink:
    """A signed `https` address of one object of someone else's.

    `url` is byte for byte what the manifest said; it holds a secret, so neither `str` nor `repr` shows it.
    """

    url: str

    def __repr__(self) -> str:
        return "ShareLink(…)"


Source = Location | ShareLink
