"""What each data trigger of a declaration watches, and the folders it works with. Nothing is looked at here."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batch_pipeline.locations import Location, parse_folder
from batch_pipeline.triggers.settings import ManifestTrigger, NewFilesTrigger, NotificationTrigger, Trigger

if TYPE_CHECKING:
    from batch_pipeline.deployment import Deployment
    from batch_pipeline.triggers.looking import Watch

DataTrigger = ManifestTrigger | NewFilesTrigger | NotificationTrigger


def named(triggers: Sequence[Trigger]) -> Iterator[tuple[str, Trigger]]:
    """Each trigger with its kind, and a number from the second of a kind on: what tells them apart in one declaration.

    The order of a declaration's triggers of one kind is therefore part of the names of sensors, but of no folder.
    """
    seen: Counter[str] = Counter()
    for trigger in triggers:
        seen[trigger.kind] += 1
        yield trigger.kind if seen[trigger.kind] == 1 else f"{trigger.kind}_{seen[trigger.kind]}", trigger


@dataclass(frozen=True)
class Places:
    """The folders of one trigger."""

    watched: Location | None
    """None is every object that its queue tells of."""
    state: Location
    manifests: Location | None
    """Where it writes the manifests that it gathers; None for one that gathers none."""
    outputs: Location
    """Holds the output folders of all services."""


def places_of(trigger: DataTrigger, declaration: str, template: Mapping[str, Any], *, allow_local: bool) -> Places:
    """Raises `InvalidLocation`, and `InvalidParameters` where the template's output path leaves no room for state.

    The folders are named after what is watched, so that a trigger finds its own wherever it stands in the declaration.
    """
    from batch_pipeline.triggers.template import ServiceTemplate

    def folder(text: str, what: str) -> Location:
        return parse_folder(text, allow_local=allow_local, what=what)

    beside = ServiceTemplate(template).state_folder
    watched = folder(trigger.path, "path") if trigger.path is not None else None
    ours = f"{beside}{declaration}/{trigger.kind}-{_digest(trigger, watched)}/"
    own = folder(trigger.state_path or ours, "state_path")
    outputs = folder(beside.removesuffix("_triggers/"), "output_path")
    if isinstance(trigger, ManifestTrigger):
        return Places(watched, own, None, outputs)
    if trigger.manifests_path is not None:
        return Places(watched, own, folder(trigger.manifests_path, "manifests_path"), outputs)
    return Places(watched, own, folder(f"{ours}manifests/", "manifests_path"), outputs)


def watch_of(
    trigger: DataTrigger, declaration: str, template: Mapping[str, Any], deployment: Deployment, most: int
) -> Watch:
    """The watch of a trigger, which hands out at most `most` arrivals a look. Raises as `places_of`."""
    from batch_pipeline.triggers.manifests import ManifestWatch
    from batch_pipeline.triggers.new_files import NewFilesWatch
    from batch_pipeline.triggers.notifications import NotificationWatch

    places = places_of(trigger, declaration, template, allow_local=deployment.settings.allow_local_files)
    if isinstance(trigger, ManifestTrigger):
        return ManifestWatch(deployment.storage, _some(places.watched), places.state, most)
    gathering: dict[str, Any] = {
        "storage": deployment.storage,
        "state": places.state,
        "manifests": _some(places.manifests),
        "name": declaration,
        "settle_seconds": trigger.settle_seconds,
        "max_files": trigger.max_files,
        "max_bytes": trigger.max_bytes,
        "pattern": trigger.pattern,
        "most": most,
    }
    if isinstance(trigger, NewFilesTrigger):
        return NewFilesWatch(folder=_some(places.watched), **gathering)
    # Where a folder is watched, it is known to be apart from the outputs.
    outputs = (places.outputs,) if places.watched is None else ()
    return NotificationWatch(queue_url=trigger.queue_url, folder=places.watched, outputs=outputs, **gathering)


def _digest(trigger: DataTrigger, watched: Location | None) -> str:
    """8 hex digits that stand for what a trigger watches."""
    queue = trigger.queue_url if isinstance(trigger, NotificationTrigger) else ""
    return hashlib.sha256(f"{queue}{watched or ''}".encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _some(folder: Location | None) -> Location:
    assert folder is not None, "a kind of trigger that has this folder"
    return folder
