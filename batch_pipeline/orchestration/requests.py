"""What a tick asks of Dagster: one run for each arrival. What a tick that is killed anywhere leaves is known here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.storage.tags import RUN_KEY_TAG

from batch_pipeline.errors import BatchPipelineError, InvalidParameters
from batch_pipeline.locations import parse_source
from batch_pipeline.orchestration.admission import count_services, existing_services
from batch_pipeline.orchestration.config import named_parameters, to_run_config
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.names import PARTITION
from batch_pipeline.orchestration.runs import run_records
from batch_pipeline.orchestration.tags import service_tags
from batch_pipeline.orchestration.turns import refused_services
from batch_pipeline.settings import Settings

if TYPE_CHECKING:
    from batch_pipeline.triggers.looking import Arrival
    from batch_pipeline.triggers.template import Occasion


class TickFailed(dg.DagsterError):
    """A tick that can't do its work: it fails with this message and no other, and what it remembered is kept."""


@contextmanager
def as_tick_failures() -> Iterator[None]:
    """Raise our errors as `TickFailed`, with their message on one line."""
    try:
        yield
    except BatchPipelineError as error:
        raise TickFailed(" ".join(error.message.split())) from None


def run_request(
    declaration: Declaration, occasion: Occasion, settings: Settings, *, run_key: str | None = None, **given: Any
) -> dg.RunRequest:
    """The run of the service for an occasion, with `given` in place of the template's parameters.

    Raises `InvalidParameters`.
    """
    from batch_pipeline.triggers.template import ServiceTemplate

    config = ServiceTemplate(declaration.template or {}).expand(occasion, **given)
    parameters = named_parameters(config, occasion.name, settings, declaration=declaration.name)
    return dg.RunRequest(
        run_key=run_key,
        partition_key=occasion.name,
        run_config=to_run_config(parameters.to_config(), declaration.name),
        tags=service_tags(parameters, declaration.name),
    )


@dataclass(frozen=True)
class Position:
    """A sensor's cursor: that of its watch, and the services of the last tick, by the digests in their names."""

    watch: str | None = None
    asked: frozenset[str] = frozenset()

    @classmethod
    def read(cls, cursor: str | None) -> Position:
        """What is no cursor of ours is handed to the watch, which says that it is lost."""
        try:
            found = json.loads(cursor or "{}")
            watch = found.get("watch")
            return cls(None if watch is None else str(watch), frozenset(map(str, found.get("asked", ()))))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return cls(cursor)

    def __str__(self) -> str:
        return json.dumps({"watch": self.watch, "asked": sorted(self.asked)})


class Existing:
    """The services of an instance as one tick sees them. Read once, when it is made."""

    def __init__(self, instance: dg.DagsterInstance, declaration: str) -> None:
        self._instance = instance
        self._declaration = declaration
        self.names = frozenset(instance.get_dynamic_partitions(declaration))
        existing = {**existing_services(instance), declaration: set(self.names)}
        self.count = count_services(existing, refused_services(instance, existing))

    def requested(self, position: Position, run_keys: Sequence[str]) -> set[str]:
        """Which of these run keys need no run any more: the service of each has one, or was deleted.

        A service was deleted where the last tick made its partition, which is gone.
        """
        services = {key: _service(key) for key in run_keys}
        records = run_records(self._instance, self._declaration, {name for name, _ in services.values()})
        ran = {run.tags[PARTITION] for run in (record.dagster_run for record in records) if not _never_launched(run)}
        gone = {name for name, etag8 in services.values() if etag8 in position.asked and name not in self.names}
        return {key for key, (name, _) in services.items() if name in ran | gone}


@dataclass
class Requests:
    """The runs to ask for; why others are refused; how many wait for services to be deleted, or for the next tick."""

    runs: list[dg.RunRequest] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    waiting: int = 0
    later: int = 0

    @property
    def names(self) -> list[str]:
        return [str(run.partition_key) for run in self.runs]

    @property
    def asked(self) -> frozenset[str]:
        return frozenset(name[-8:] for name in self.names)


def requests_for(
    arrivals: Iterable[Arrival], declaration: Declaration, existing: Existing, settings: Settings, most: int
) -> Requests:
    """A run for each arrival that has room among the deployment's services, and whose parameters are right.

    `most` of them; the others come again at the next look.
    """
    found = Requests()
    new: set[str] = set()
    for arrival in arrivals:
        occasion = arrival.occasion
        if occasion.name in new:
            continue
        if len(found.runs) >= most:
            found.later += 1
            continue
        if occasion.name not in existing.names and existing.count + len(new) >= settings.max_services:
            found.waiting += 1
            continue
        try:
            run = run_request(declaration, occasion, settings, run_key=arrival.run_key, input_path=arrival.location.uri)
        except InvalidParameters as error:
            found.refused.append(f"{arrival.location}: {error.message}")
            continue
        found.runs.append(run)
        new |= {occasion.name} - existing.names
    return found


def _service(run_key: str) -> tuple[str, str]:
    """The name of the service made for an arrival of this run key, and the digest at its end."""
    from batch_pipeline.triggers.template import SUFFIX, service_name

    if "://" not in run_key:
        name = run_key.partition(" ")[0]
        return name, name[-8:]
    text = json.loads(run_key) if run_key.startswith('"') else run_key
    uri, _, etag = text.rpartition(" ")
    place: Any = parse_source(uri, allow_local=True)
    name = service_name(place.name.removesuffix(SUFFIX), place.key, etag)
    return name, name[-8:]


def _never_launched(run: DagsterRun) -> bool:
    """Made by a tick that was killed before it launched the run: asked for again, Dagster launches this very run."""
    return run.status == dg.DagsterRunStatus.NOT_STARTED and RUN_KEY_TAG in run.tags
