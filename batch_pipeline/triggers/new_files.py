"""A trigger that gathers new files below a folder into input manifests, each of which makes one service."""

from __future__ import annotations

from dataclasses import dataclass

from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage
from batch_pipeline.triggers.looking import Look, Requested


@dataclass(frozen=True)
class NewFilesWatch:
    """Gathers the new files below `folder` whose names match `pattern` (as a shell would) into `manifests`."""

    storage: Storage
    folder: Location
    state: Location
    manifests: Location
    name: str
    settle_seconds: float
    max_files: int
    max_bytes: int | None = None
    pattern: str = "*"
    most: int = 20

    def look(self, cursor: str | None, requested: Requested) -> Look:
        raise NotImplementedError
