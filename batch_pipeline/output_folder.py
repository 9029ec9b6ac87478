"""An output folder before and between runs: whose it is, what it was made from, and how it is emptied."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import orjson

from batch_pipeline.errors import AccessDenied, ObjectNotFound, OutputRefused, ServiceChanged, ServiceMadeOver
from batch_pipeline.layout import OutputLayout, result_digest
from batch_pipeline.locations import Location
from batch_pipeline.plan import stored_tables
from batch_pipeline.records import LARGEST
from batch_pipeline.storage import Storage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MANIFEST = re.compile(r"infer-(?:result|error)-[0-9]+\.manifest")
MOST_NODES = 100_000
MOST_ATTEMPTS = 1_000_000_000
"""More is not what a service writes down."""


@dataclass(frozen=True)
class ServiceRecord:
    """What `_batch/service.json` says. `made_from` maps each thing a service is made from to a comparable value."""

    service: str
    made_from: dict[str, Any]
    attempt: int
    run: str = ""
    """Which run made it, when it started the service or started it over."""

    @property
    def fingerprint(self) -> str:
        """Of what the service is made from: plan and nodes are bound to it."""
        return hashlib.sha256(orjson.dumps(self.made_from, option=orjson.OPT_SORT_KEYS)).hexdigest()


def load_record(storage: Storage, layout: OutputLayout) -> ServiceRecord | None:
    """None where there is none. Raises OutputRefused where it is none of ours."""
    try:
        data = storage.read(layout.service, end=LARGEST + 1)
    except ObjectNotFound:
        return None
    match _json(data):
        case {
            "service": str(service),
            "made_from": {"node_count": int(nodes)} as made_from,
            "attempt": int(attempt),
            **rest,
        } if 0 < nodes <= MOST_NODES and 0 < attempt <= MOST_ATTEMPTS:
            return ServiceRecord(service, made_from, attempt, str(rest.get("run", "")))
        case _:
            raise OutputRefused(f"{layout.service} is no record of a service: something else has written it")


def _json(data: bytes) -> object:
    """None for what is no document of ours."""
    try:
        found: object = orjson.loads(data) if len(data) <= LARGEST else None
        orjson.dumps(found)  # more levels are read than can be written
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return found


def save_record(storage: Storage, layout: OutputLayout, record: ServiceRecord) -> None:
    storage.write(layout.service, orjson.dumps(asdict(record)))


def inspect(storage: Storage, layout: OutputLayout, service: str) -> ServiceRecord | None:
    """The record of this service's earlier attempt, None where the folder is empty.

    Raises OutputRefused where it holds anything else, naming the first foreign object.
    """
    try:
        record = load_record(storage, layout)
        if record is not None and record.service == service:
            return record
        if record is not None:
            raise OutputRefused(
                f"output_path {layout.output} holds the results of the service {record.service}: "
                f"to run that one again, deploy it by its name (--name {record.service}); else choose another folder"
            )
        for info in storage.list(layout.output):
            marker = info.size == 0 and info.location.is_folder
            if not marker and info.location != layout.lock:
                raise OutputRefused(
                    f"output_path {layout.output} is not empty: it holds {info.location}; choose an empty folder"
                )
    except ObjectNotFound as error:
        raise OutputRefused(f"output_path {layout.output}: {error.message}") from error
    except AccessDenied as error:
        raise OutputRefused(f"output_path {layout.output} can't be read: {error.message}") from error
    return None


def refuse_changes(layout: OutputLayout, record: ServiceRecord, made_from: dict[str, Any]) -> None:
    """Raises ServiceChanged that names everything that is not as it was."""
    changes = _changes(record.made_from, made_from)
    if changes:
        raise ServiceChanged(
            f"the service {record.service} was run before with something else ({changes}). Put it back, "
            f"choose another name and output_path, or remove its objects in {layout.output} and start over "
            "with if_changed: overwrite (--overwrite)"
        )


def refuse_made_over(
    layout: OutputLayout, record: ServiceRecord, held: Mapping[str, Any], fingerprint: str | None
) -> None:
    """Raises ServiceMadeOver where the folder was made over since a step's run began.

    The step goes by `held`, which is named where it differs, and by the record's fingerprint, where it was told that.
    """
    changes = _changes(held, {key: record.made_from.get(key) for key in held})
    if changes or fingerprint not in (None, record.fingerprint):
        raise made_over(layout, record, changes)


def made_over(layout: OutputLayout, record: ServiceRecord | None, changes: str = "") -> ServiceMadeOver:
    """The error of a step that finds another service than its own, or one that starts over."""
    by = f" by run {record.run}" if record is not None and record.run else ""
    return ServiceMadeOver(
        f"{layout.output} was made over{by} since this run began{f' ({changes})' if changes else ''}: "
        "what this run did is gone; run the service again from the start"
    )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return "; ".join(_change(key, before.get(key), now.get(key)) for key in keys)


def _change(key: str, before: Any, now: Any) -> str:
    if key == "input list":
        return "the input list changed"
    if isinstance(before, dict) and isinstance(now, dict):
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        return f"{key} changed: {', '.join(names)}"
    if key == "mapping":
        return "mapping changed"
    return f"{key} was {before} and is {now}"


def _own_objects(storage: Storage, layout: OutputLayout) -> Iterator[Location]:
    """Every object of the service but its manifests, its record and its lock."""
    results = _OwnResults(storage, layout)
    yield from (info.location for info in storage.list(layout.results) if info.location in results)
    for info in storage.list(layout.records):
        if info.location not in (layout.service, layout.lock, layout.inputs):
            yield info.location
    yield layout.inputs


class _OwnResults:
    """The locations of results by the input list, of which 16 bytes a line are held from the first question on."""

    def __init__(self, storage: Storage, layout: OutputLayout) -> None:
        self._storage, self._layout = storage, layout

    def __contains__(self, location: Location) -> bool:
        folder = self._layout.results.key
        if not location.key.startswith(folder):
            return False
        # An array of bytes has no zeros at their ends.
        digest = result_digest(location.key[len(folder) :]).rstrip(b"\0")
        place = int(self._digests.searchsorted(digest))
        return place < len(self._digests) and bool(self._digests[place] == digest)

    @cached_property
    def _digests(self) -> NDArray[np.bytes_]:
        import numpy as np

        try:
            with stored_tables(self._storage, self._layout.inputs) as tables:
                ours = np.concatenate([np.array(table["result"].to_list(), "S16") for table in tables.read(["result"])])
        except ObjectNotFound:
            return np.array([], "S16")
        ours.sort()
        return ours


def empty(storage: Storage, layout: OutputLayout, record: ServiceRecord) -> int:
    """Removes the service's own objects, and no others; its record last, so that a second try finds the rest."""
    # First, as it asks the input list whose they are.
    drop_unfinished(storage, layout)
    nodes = range(int(record.made_from["node_count"]))
    # Of one call to the store, no one says what goes first: all result manifests are the sign of a finished service.
    removed = storage.delete(layout.result_manifest(node) for node in nodes)
    removed += storage.delete(layout.error_manifest(node) for node in nodes)
    removed += storage.delete(_own_objects(storage, layout))
    return removed + storage.delete([layout.service])


def drop_unfinished(storage: Storage, layout: OutputLayout) -> int:
    """Drops what the service's own writers that were killed left behind, invisible; returns how much that was."""
    results = _OwnResults(storage, layout)

    def is_own(location: Location) -> bool:
        name = location.key.removeprefix(layout.output.key)
        return location.key.startswith(layout.records.key) or bool(_MANIFEST.fullmatch(name)) or location in results

    return storage.drop_unfinished(layout.output, is_own)
