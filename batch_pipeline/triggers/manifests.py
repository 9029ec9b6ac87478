"""A trigger that watches a folder for input manifests: each new or rewritten one makes one service."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from batch_pipeline.locations import Location
from batch_pipeline.storage import ObjectInfo, Storage
from batch_pipeline.triggers.looking import (
    Arrival,
    Look,
    Nameable,
    Requested,
    by_age,
    counted,
    pass_over_odd_names,
    passed_over,
    sentence,
    without_run,
)
from batch_pipeline.triggers.state import State, StateFolder
from batch_pipeline.triggers.taken import Comparison, Taken, digest
from batch_pipeline.triggers.template import SUFFIX

_CANDIDATES = 1000


@dataclass(frozen=True)
class ManifestWatch:
    """Watches every `*.manifest` below `folder`. `state` is a folder of its own; at most `most` arrivals a look."""

    storage: Storage
    folder: Location
    state: Location
    most: int = 50

    def look(self, cursor: str | None, requested: Requested) -> Look:
        """As Watch.look: the arrivals of the last look that got no run first, then new ones, oldest first."""
        states = StateFolder(self.storage, self.state, self.folder.uri)
        recalled = states.recall(cursor)
        if recalled.name is not None:
            states.clean(recalled.name)
        before = recalled.state or State(Taken())
        comparison = Comparison(before.taken)
        fresh = Nameable(comparison.fresh(self.storage.list(self.folder, refused=pass_over_odd_names)), _is_manifest)
        candidates = heapq.nsmallest(max(_CANDIDATES, self.most), fresh, key=by_age)
        taken = comparison.still_there
        no_run = without_run(before.handed_out, requested)
        again = [one for one in no_run if digest(one.location, one.etag) in taken]
        deleted = sum(not self.storage.exists(one.location) for one in no_run if one not in again)
        new, known = self._choose(candidates, self.most - len(again), requested)
        arrivals = (*again, *new)
        taken = taken.union(digest(one.location, one.etag) for one in (*new, *known))
        cursor_now = states.save(State(taken, arrivals), recalled.name)
        waiting = fresh.count - len(new) - len(known)
        message = sentence(
            recalled.said,
            new and counted(len(new), "new manifest"),
            again and f"{counted(len(again), 'manifest')} again, which got no run",
            passed_over(deleted),
            known and f"{counted(len(known), 'manifest')} with a run already",
            waiting and f"{waiting:,} more wait",
            fresh.unusable and f"{counted(fresh.unusable, 'manifest')} passed over: no location can name them",
        )
        return Look(arrivals, cursor_now, message or f"nothing new among {counted(comparison.objects, 'object')}")

    def _choose(
        self, candidates: list[ObjectInfo], room: int, requested: Requested
    ) -> tuple[list[Arrival], list[Arrival]]:
        """Up to `room` arrivals that have no run, and those met on the way that have one."""
        new: list[Arrival] = []
        known: list[Arrival] = []
        for start in range(0, len(candidates), self.most):
            some = [Arrival.of(info) for info in candidates[start : start + self.most]]
            if len(new) >= room:
                break
            without = without_run(some, requested)
            known += [one for one in some if one not in without]
            new += without[: room - len(new)]
        return new, known


def _is_manifest(location: Location) -> bool:
    return location.name.endswith(SUFFIX)
