"""What every trigger on data has in common: it looks, remembers in a short cursor, and hands out what arrived."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from batch_pipeline.locations import Location
from batch_pipeline.triggers.template import SUFFIX, Occasion, service_name, version_digest

Requested = Callable[[Sequence[str]], Collection[str]]
"""Which of these run keys already have a run on the instance."""


@dataclass(frozen=True)
class Arrival:
    """One version of one input manifest, for which there is to be exactly one service. `size` in bytes."""

    location: Location
    etag: str
    size: int
    modified: datetime

    @property
    def run_key(self) -> str:
        """Place and ETag: the same whenever this version is found again, and readable."""
        text = f"{self.location.uri} {self.etag}"
        return text if text.isprintable() else json.dumps(text)

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
