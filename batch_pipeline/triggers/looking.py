"""What every trigger on data has in common: it looks, remembers in a short cursor, and hands out what arrived."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from batch_pipeline.errors import AccessDenied, InvalidLocation, OddName
from batch_pipeline.locations import Location, parse_source
from batch_pipeline.storage import ObjectInfo
from batch_pipeline.triggers.template import SUFFIX, Occasion, service_name, version_digest

Requested = Callable[[Sequence[str]], Collection[str]]
"""Which of these run keys already have a run on the instance."""

_LONGEST_RUN_KEY = 1200
"""Bytes; PostgreSQL indexes 2,704 of a tag. A key of printable characters is never so long."""

LOST = "the cursor was lost, so all is looked at anew"
OTHER = "the cursor is of another place, so all is looked at anew"
RESET = "no cursor, as after a reset: all is looked at anew, and services deleted meanwhile are made again"


@dataclass(frozen=True)
class Arrival:
    """One version of one input manifest, for which there is to be exactly one service. `size` in bytes."""

    location: Location
    etag: str
    size: int
    modified: datetime

    @classmethod
    def of(cls, info: ObjectInfo) -> Arrival:
        """Times are to the second, since some answers of a store have no more."""
        return cls(info.location, info.etag, info.size, info.modified.replace(microsecond=0))

    @property
    def run_key(self) -> str:
        """Place and ETag: the same whenever this version is found again, and readable.

        Where a database could not index that, the service's name and the digest of it.
        """
        text = f"{self.location.uri} {self.etag}"
        key = text if text.isprintable() else json.dumps(text)
        if len(key.encode()) <= _LONGEST_RUN_KEY:
            return key
        return f"{self.occasion.name} {hashlib.sha256(key.encode()).hexdigest()}"

    @property
    def stem(self) -> str:
        """The file's name without `.manifest`."""
        return self.location.name.removesuffix(SUFFIX)

    @property
    def occasion(self) -> Occasion:
        """What a template is expanded for; `time` is the object's own, so that it is the same at every look."""
        key = self.location.key
        return Occasion(
            service_name(self.stem, key, self.etag), self.stem, self.modified, version_digest(key, self.etag)
        )


@dataclass(frozen=True)
class Look:
    """What one look found.

    `arrivals` each make one service, and are few. `cursor` is a short text for the next look. `message` is one line for
    people: "3 new manifests; 120 more wait".
    """

    arrivals: tuple[Arrival, ...]
    cursor: str
    message: str


class Watch(Protocol):
    """A place where input arrives."""

    def look(self, cursor: str | None, requested: Requested) -> Look:
        """Look once. The same cursor again finds the same arrivals, or more, under the same run keys.

        `cursor` is the last look's, None for the first; whatever else it holds is as if it were lost. Raises our errors
        where storage fails; then nothing is lost, and the same cursor is to be used again.
        """
        ...


def without_run(arrivals: Sequence[Arrival], requested: Requested) -> list[Arrival]:
    """Those arrivals that have no run on the instance, in order."""
    done = frozenset(requested([arrival.run_key for arrival in arrivals])) if arrivals else frozenset()
    return [arrival for arrival in arrivals if arrival.run_key not in done]


def passed_over(number: int) -> str:
    """What is said of manifests that have no run, and never will; empty for none."""
    return f"{counted(number, 'manifest')} passed over: deleted since" if number else ""


def state_gone(folder: Location, manifests: Location) -> str:
    """What is said where going on would take everything again."""
    return (
        f"the state in {folder}, of which the sensor's cursor tells, is gone, and {manifests} has no manifests of it: "
        "set `state_path` and `manifests_path` to where they are now, or reset the cursor to take all that is there"
    )


def by_age(info: ObjectInfo) -> tuple[datetime, str]:
    """Oldest first; objects of the same moment in the order of their keys."""
    return info.modified, info.location.key


def pass_over_odd_names(_: Location, error: AccessDenied | OddName) -> None:
    """For a listing of a watched folder on a disk: what no text can name can't be handed out."""
    if not isinstance(error, OddName):
        raise error


class Nameable:
    """The objects that are `wanted` and that the text of a location can name, counted as they stream by."""

    def __init__(self, infos: Iterable[ObjectInfo], wanted: Callable[[Location], bool]) -> None:
        self._infos = infos
        self._wanted = wanted
        self.count = 0
        self.unusable = 0

    def __iter__(self) -> Iterator[ObjectInfo]:
        for info in self._infos:
            if not self._wanted(info.location):
                continue
            if _can_be_named(info.location):
                self.count += 1
                yield info
            else:
                self.unusable += 1


def _can_be_named(location: Location) -> bool:
    """Whether the text of a location, in a manifest or in parameters, leads back to this object."""
    try:
        return parse_source(location.uri, allow_local=True) == location
    except InvalidLocation:
        return False


def counted(number: int, what: str) -> str:
    """As "1 file" and "1,204 files"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def sentence(*parts: object) -> str:
    """The parts that are there, as one line for people."""
    return "; ".join(str(part) for part in parts if part)
