"""What a declaration says of its triggers: plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class ManifestTrigger:
    """Each new or rewritten `*.manifest` under `path` is a service."""

    path: str
    """The folder that is watched."""
    state_path: str | None = None
    """Where it remembers what it took; None is beside the outputs."""
    interval_seconds: int = 30

    kind: ClassVar[str] = "manifests"
    brings_input: ClassVar[bool] = True


@dataclass(frozen=True)
class NewFilesTrigger:
    """New objects under `path` are gathered into a manifest, which is a service."""

    path: str
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
    state_path: str | None = None
    interval_seconds: int = 30

    kind: ClassVar[str] = "new_files"
    brings_input: ClassVar[bool] = True


@dataclass(frozen=True)
class NotificationTrigger:
    """The same from a queue of bucket notifications, for a bucket too large to list."""

    queue_url: str
    path: str | None = None
    """The folder whose objects count; None is every object that the queue tells of."""
    settle_seconds: float = 60.0
    max_files: int = 10_000
    max_bytes: int | None = None
    pattern: str = "*"
    manifests_path: str | None = None
    state_path: str | None = None
    interval_seconds: int = 30

    kind: ClassVar[str] = "notifications"
    brings_input: ClassVar[bool] = True


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
