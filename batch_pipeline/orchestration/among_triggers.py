"""Whether the triggers of one declaration keep out of each other's way: no input is taken by two of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product

from batch_pipeline.errors import Problem
from batch_pipeline.locations import Location
from batch_pipeline.orchestration.watches import DataTrigger, Places
from batch_pipeline.triggers.overlaps import overlap, share_keys
from batch_pipeline.triggers.settings import ManifestTrigger, NewFilesTrigger, NotificationTrigger

_TAKES = {
    ManifestTrigger: frozenset({"manifests"}),
    NewFilesTrigger: frozenset({"files"}),
    NotificationTrigger: frozenset({"manifests", "files"}),
}
"""What a kind of trigger takes of what arrives in a folder; files and manifests may share one."""


def among(triggers: Sequence[tuple[int, DataTrigger, Places]]) -> Iterator[Problem]:
    """What is wrong between two of the triggers, at the later one's number."""
    for (first, one, its), (second, other, others) in combinations(triggers, 2):
        where, there = f"triggers.{second}", f"triggers.{first}"
        if _same_queue(one, other):
            yield Problem(where, f"reads the queue of {there}: what one receives is hidden from the other")
        elif _TAKES[type(one)] & _TAKES[type(other)] and _meet(its.watched, others.watched):
            what = f"watches {others.watched}, and {there} watches {its.watched}: each input would be taken twice"
            yield Problem(where, what)
        elif _may_name_alike(one, its, other, others):
            what = f"watches {others.watched}, and {there} watches {its.watched}: manifests of one key and content "
            yield Problem(where, what + "would make services of one name; declare a service for each bucket")
        else:
            yield from _works(where, there, its, others)


def _works(where: str, there: str, its: Places, others: Places) -> Iterator[Problem]:
    for mine, theirs in product(_own(others), _own(its)):
        if overlap(mine, theirs):
            yield Problem(where, f"keeps its state or manifests in {mine}, and {there} in {theirs}: each needs its own")
    for mine in _own(others):
        if _reaches(its, mine):
            yield Problem(where, f"keeps its state or manifests in {mine}, and {there} watches {_watched(its)}")
    for theirs in _own(its):
        if _reaches(others, theirs):
            yield Problem(where, f"watches {_watched(others)}, and {there} keeps its state or manifests in {theirs}")


def _reaches(places: Places, folder: Location) -> bool:
    """Whether what is written in a folder may come to a trigger as input: to one without a folder all but outputs."""
    return overlap(places.watched, folder) if places.watched else not overlap(places.outputs, folder)


def _watched(places: Places) -> str:
    return str(places.watched or "all that its queue tells of, for lack of a `path`")


def _own(places: Places) -> list[Location]:
    """The outermost of the folders that a trigger works with."""
    if places.manifests is None or overlap(places.state, places.manifests):
        return [places.state]
    return [places.state, places.manifests]


def _same_queue(one: DataTrigger, other: DataTrigger) -> bool:
    if isinstance(one, NotificationTrigger) and isinstance(other, NotificationTrigger):
        return one.queue_url == other.queue_url
    return False


def _may_name_alike(one: DataTrigger, its: Places, other: DataTrigger, others: Places) -> bool:
    """Whether a manifest in each may have the same key and ETag, which the service's name is made of.

    Of gathered files the name is made of their manifest's key, which is none of theirs.
    """
    taking = all("manifests" in _TAKES[type(trigger)] for trigger in (one, other))
    return taking and its.watched is not None and others.watched is not None and share_keys(its.watched, others.watched)


def _meet(one: Location | None, other: Location | None) -> bool:
    """Whether two folders overlap, as far as can be known: what a queue tells of may be anywhere."""
    return one is not None and other is not None and overlap(one, other)
