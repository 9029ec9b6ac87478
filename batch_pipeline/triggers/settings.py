"""What a declaration says of its triggers: plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

LEAST = {"interval_seconds": 1, "settle_seconds": 0, "max_files": 1, "max_bytes": 1}
"""The least that a number of a trigger may be."""
MOST_SECONDS = 10**9
"""The most that `settle_seconds` may be: 31 years, which are within the calendar from any time on."""


@dataclass(frozen=True, kw_only=True)
class _Watching:
    state_path: str | None = None
    """Where it remembers what it took; None is beside the outputs."""
    interval_seconds: int = 30

    brings_input: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class _Gathering(_Watching):
    settle_seconds: float = 60.0
    """They are gathered once none has come for this long, …"""
    max_files: int = 10_000
    """… or there are so many, …"""
    max_bytes: int | None = None
    """… or they have so many bytes."""
    pattern: str = "*"
    """Which file names count, as in a shell."""
    manifests_path: str | None = None
    """Where the manifests are written; None is beside the outputs."""


@dataclass(frozen=True)
class ManifestTrigger(_Watching):
    """Each new or rewritten `*.manifest` under `path` is a service."""

    path: str
    """The folder that is watched."""

    kind: ClassVar[str] = "manifests"


@dataclass(frozen=True)
class NewFilesTrigger(_Gathering):
    """New objects under `path` are gathered into a manifest, which is a service."""

    path: str

    kind: ClassVar[str] = "new_files"


@dataclass(frozen=True)
class NotificationTrigger(_Gathering):
    """The same from a queue of bucket notifications, for a bucket too large to list."""

    queue_url: str
    path: str | None = None
    """The folder whose objects count; None is every object that the queue tells of."""

    kind: ClassVar[str] = "notifications"


@dataclass(frozen=True)
class ScheduleTrigger:
    """A service at the times of a cron schedule."""

    cron: str
    timezone: str = "UTC"

    kind: ClassVar[str] = "schedule"
    brings_input: ClassVar[bool] = False


@dataclass(frozen=True)
class ModelTrigger:
    """A new normal version of the model runs the services again."""

    interval_seconds: int = 60

    kind: ClassVar[str] = "model"
    brings_input: ClassVar[bool] = False


Trigger = ManifestTrigger | NewFilesTrigger | NotificationTrigger | ScheduleTrigger | ModelTrigger
