"""What a sensor keeps between looks: a short text that says which state to go on from, and in which folder it is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from batch_pipeline.errors import InvalidLocation
from batch_pipeline.locations import Location, parse_folder

_NAME = re.compile(r"[0-9a-f]{1,32}")


@dataclass(frozen=True)
class Cursor:
    """`folder`: the state folder of the look that made it. Older ones have None: its name may be another by now."""

    name: str
    folder: Location | None = None

    @classmethod
    def read(cls, text: str) -> Cursor | None:
        """None for what is no cursor."""
        name, separator, place = text.partition(" ")
        if not _NAME.fullmatch(name):
            return None
        try:
            return cls(name, parse_folder(place, allow_local=True) if separator else None)
        except InvalidLocation:
            return None

    def __str__(self) -> str:
        return self.name if self.folder is None else f"{self.name} {self.folder.uri}"


def beside(folder: Location, name: str) -> Location:
    """The folder of that name in the folder that this one is in."""
    parent = folder.key.removesuffix("/").rpartition("/")
    return Location(folder.bucket, f"{parent[0]}{parent[1]}{name}/", folder.scheme)


def last_name(folder: Location) -> str:
    return folder.key.removesuffix("/").rpartition("/")[2]
