"""What a deployment is set to: one frozen object read from the environment. No object store, no network."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from batch_pipeline import locations
from batch_pipeline.errors import InvalidLocation, InvalidSettings
from batch_pipeline.locations import Location
from batch_pipeline.node.time_limit import BATCH_SECONDS

PREFIX = "BATCH_PIPELINE_"
SHARE_LINK_HOSTS = ("*.myhuaweicloud.com", "*.myhwclouds.com", "*.amazonaws.com")

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}
_NO_TEXTS: tuple[str, ...] = ()
_T = TypeVar("_T")


@dataclass(frozen=True)
class Settings:
    """The settings of one deployment. The defaults are those of an empty environment."""

    models: Location | None = None
    """The registry's folder (`BATCH_PIPELINE_MODELS`)."""
    node_specs: Path | None = None
    """A YAML file that extends the table of node specs (`BATCH_PIPELINE_NODE_SPECS`)."""
    services: Path | None = None
    """A folder of declared services, `<name>/defs.yaml` each (`BATCH_PIPELINE_SERVICES`)."""
    granted_specs: frozenset[str] = frozenset()
    """Ids of the specs that need a grant and have it (`BATCH_PIPELINE_GRANTED_SPECS`, comma-separated)."""
    share_link_hosts: tuple[str, ...] = SHARE_LINK_HOSTS
    """Host patterns that share links may point to, beside the endpoint (`BATCH_PIPELINE_SHARE_LINK_HOSTS`)."""
    allow_local_files: bool = False
    """Whether `file:///…` locations work (`BATCH_PIPELINE_ALLOW_LOCAL_FILES`)."""
    max_services: int = 1000
    max_nodes: int = 256
    cache: Path = field(default_factory=lambda: _default_cache(os.environ))
    """Where model packages and their statuses are kept (`BATCH_PIPELINE_CACHE`)."""
    min_part_bytes: int = 64 * 1024
    """A CSV is not divided into parts smaller than this (`BATCH_PIPELINE_MIN_PART_BYTES`)."""
    lock_seconds: float = 30.0
    """How long a lock on an output folder outlives its holder's last heartbeat (`BATCH_PIPELINE_LOCK_SECONDS`)."""
    local_nodes: int = field(default_factory=lambda: os.cpu_count() or 1)
    """How many compute nodes run at once on one machine (`BATCH_PIPELINE_LOCAL_NODES`)."""
    batch_seconds: float = BATCH_SECONDS
    """How long one call of a model may take, and the decoding of one image (`BATCH_PIPELINE_BATCH_SECONDS`)."""
    step_outputs: Location | None = None
    """The bucket folder through which steps hand each other what they need (`BATCH_PIPELINE_STEP_OUTPUTS`).

    None is Dagster's own storage folder, which only the processes of one machine share.
    """
    endpoint: str | None = None
    """The S3 endpoint (`AWS_ENDPOINT_URL_S3`, else `AWS_ENDPOINT_URL`); None is Amazon's own."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings; an empty variable counts as unset. Raises `InvalidSettings` with every problem."""
        reader = _Reader(env)
        allow_local = reader.read("ALLOW_LOCAL_FILES", _boolean, False)
        settings = cls(
            models=reader.read("MODELS", lambda text: locations.parse_folder(text, allow_local=allow_local), None),
            node_specs=reader.read("NODE_SPECS", lambda text: Path(text).expanduser().absolute(), None),
            services=reader.read("SERVICES", lambda text: Path(text).expanduser().absolute(), None),
            granted_specs=frozenset(reader.read("GRANTED_SPECS", _texts, _NO_TEXTS)),
            share_link_hosts=reader.read("SHARE_LINK_HOSTS", _texts, SHARE_LINK_HOSTS),
            allow_local_files=allow_local,
            max_services=reader.read("MAX_SERVICES", _positive, cls.max_services),
            max_nodes=reader.read("MAX_NODES", _positive, cls.max_nodes),
            cache=reader.read("CACHE", lambda text: Path(text).expanduser().absolute(), _default_cache(env)),
            min_part_bytes=reader.read("MIN_PART_BYTES", _positive, cls.min_part_bytes),
            lock_seconds=reader.read("LOCK_SECONDS", _seconds, cls.lock_seconds),
            local_nodes=reader.read("LOCAL_NODES", _positive, os.cpu_count() or 1),
            batch_seconds=reader.read("BATCH_SECONDS", _seconds, cls.batch_seconds),
            step_outputs=reader.read("STEP_OUTPUTS", locations.parse_folder, None),
            endpoint=env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or None,
        )
        if reader.problems:
            raise InvalidSettings("; ".join(reader.problems))
        return settings


class _Reader:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.problems: list[str] = []

    def read(self, name: str, parse: Callable[[str], _T], default: _T) -> _T:
        text = self._env.get(PREFIX + name, "").strip()
        if not text:
            return default
        try:
            return parse(text)
        except (ValueError, InvalidLocation) as error:
            self.problems.append(f"{PREFIX}{name}: {error}")
            return default


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError(f"must be true or false, not {text!r}")


def _positive(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise ValueError(f"must be an integer of 1 or more, not {text!r}")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if 0 < seconds < float("inf"):
        return seconds
    raise ValueError(f"must be a number of seconds above 0, not {text!r}")


def _texts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _default_cache(env: Mapping[str, str]) -> Path:
    base = env.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "batch-pipeline"
