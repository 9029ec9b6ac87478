"""A trigger that watches a folder for input manifests: each new or rewritten one makes one service."""

from __future__ import annotations

from dataclasses import dataclass

from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage
from batch_pipeline.triggers.looking import Look, Requested


@dataclass(frozen=True)
class ManifestWatch:
    """Watches every `*.manifest` below `folder`. `state` is a folder of its own; at most `most` arrivals a look."""

    storage: Storage
    folder: Location
    state: Location
    most: int = 50

    def look(self, cursor: str | None, requested: Requested) -> Look:
        raise NotImplementedError
