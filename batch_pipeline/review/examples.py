"""A few answers with what was asked, for people to look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import orjson

from batch_pipeline.locations import Location
from batch_pipeline.node_records import NodeRecord

if TYPE_CHECKING:
    from batch_pipeline.storage import Storage

MOST = 5
HEAD_BYTES = 16 * 1024
"""A first line that is longer than this is not shown."""

Example = dict[str, Any]


def examples(
    storage: Storage, records: Iterable[NodeRecord], results: Sequence[tuple[str | None, Location]]
) -> tuple[Example, ...]:
    """{"request", "answer"} of CSV rows, as the nodes kept them; else {"source", "answer"} of the first `results`.

    Storage's errors pass through.
    """
    pairs = [pair for pair in node_samples(records) if "request" in pair][:MOST]
    return tuple(pairs or _first_lines(storage, results[:MOST]))


def node_samples(records: Iterable[NodeRecord]) -> Iterator[Example]:
    """What the nodes kept, a turn a node."""
    for turn in zip_longest(*(one.sample for one in records)):
        yield from (pair for pair in turn if pair is not None)


def _first_lines(storage: Storage, results: Sequence[tuple[str | None, Location]]) -> Iterator[Example]:
    for source, location in results:
        head = storage.read(location, start=0, end=HEAD_BYTES) if storage.head(location).size else b""
        first, found, _ = head.partition(b"\n")
        if found:
            yield {"source": source, "answer": _answer(first)}


def _answer(line: bytes) -> Any:
    """What the line says; the text itself where something else has written it."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return line.decode(errors="replace")
