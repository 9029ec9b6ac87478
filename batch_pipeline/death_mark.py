"""Whether a node died at its work: a mark that stands in storage for as long as it works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from batch_pipeline.errors import StorageFailed
from batch_pipeline.layout import OutputLayout
from batch_pipeline.storage import Storage


@dataclass
class DeathMark:
    """One node's mark, while it works."""

    died: bool
    """An earlier try left it."""
    stays: bool
    """The next try is to be as careful: something that a process dies at was left out, or may still be left."""


@contextmanager
def death_mark(storage: Storage, layout: OutputLayout, node: int) -> Iterator[DeathMark]:
    """Sets the node's mark and takes it away at the end of the block, whatever ends it but the process's own death.

    One that is left by mistake does no harm: the next try takes a second or two longer to start.
    """
    location = layout.at_work(node)
    died = storage.exists(location)
    mark = DeathMark(died, stays=died)
    if not died:
        storage.write(location, b"")
    try:
        yield mark
    finally:
        if not mark.stays:
            with suppress(StorageFailed):
                storage.delete([location])
