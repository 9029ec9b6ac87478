"""The input list read again, each input with what the plan says of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, groupby, islice, tee
from typing import TYPE_CHECKING, Any

from batch_pipeline.errors import InputMissing
from batch_pipeline.inputs import Input, InputList

if TYPE_CHECKING:
    import polars as pl

Rows = list[dict[str, Any]]


def paired(
    tables: Iterable[pl.DataFrame], inputs: InputList, *, offset: int = 0, line: int = 1
) -> Iterator[tuple[Input, Rows]]:
    """Each input of the tables (columns line and digest, in order), read from the input list again, with its rows.

    A manifest is read from the byte `offset`, where line `line` begins, and no further than the last of them. An
    object added to the folder meanwhile is passed over; one removed from it does not come.
    """
    full = (table for table in tables if not table.is_empty())
    return _by_line(full, inputs, offset, line) if inputs.is_manifest else _by_digest(full, inputs)


def _by_line(tables: Iterable[pl.DataFrame], inputs: InputList, offset: int, line: int) -> Iterator[tuple[Input, Rows]]:
    rows = chain.from_iterable(table.iter_rows(named=True) for table in tables)
    grouped, ahead = tee((line, list(found)) for line, found in groupby(rows, key=lambda row: row["line"]))
    items = inputs.read(offset=offset, line=line, only=(line for line, _ in ahead))
    for item, (its_line, its_rows) in zip(items, grouped, strict=False):
        if item.line != its_line or its_rows[0]["digest"] != item.digest:
            raise InputMissing(f"input_path {inputs.location} was rewritten after it was read; run again")
        yield item, its_rows


def _by_digest(tables: Iterator[pl.DataFrame], inputs: InputList) -> Iterator[tuple[Input, Rows]]:
    window = deque(map(_Places, islice(tables, 2)))
    for item in inputs.read() if window else ():
        for skipped, places in enumerate(window):
            rows = places.take(item.digest)
            if rows:
                yield item, rows
                for following in islice(tables, skipped):
                    window.popleft()
                    window.append(_Places(following))
                break
        while window and not window[0].left:
            window.popleft()
            window.extend(map(_Places, islice(tables, 1)))
        if not window:
            return


class _Places:
    """A table's rows by their digests: 12 bytes a row. They are mostly asked for one after the other."""

    def __init__(self, table: pl.DataFrame) -> None:
        import numpy as np
        import polars as pl

        self._table = table
        starts = table["digest"].bin.slice(0, 8).bin.reinterpret(dtype=pl.UInt64).to_numpy()
        self._order = np.argsort(starts, kind="stable").astype(np.uint32)
        self._starts = starts[self._order]
        self._following = self._rows_from(0)
        self._next = next(self._following, None)
        self.left = table.height
        """Rows that nobody has taken."""

    def take(self, digest: bytes) -> Rows:
        """The rows that have it: those of a divided input, one after the other."""
        if self._next is None or self._next["digest"] != digest:
            place = self._place(digest)
            if place is None:
                return []
            self._following = self._rows_from(place)
            self._next = next(self._following, None)
        rows = []
        while self._next is not None and self._next["digest"] == digest:
            rows.append(self._next)
            self._next = next(self._following, None)
        self.left -= len(rows)
        return rows

    def _rows_from(self, place: int) -> Iterator[dict[str, Any]]:
        return self._table[place:].iter_rows(named=True)

    def _place(self, digest: bytes) -> int | None:
        """Where the rows that have it begin."""
        import numpy as np

        # Of numpy's own type: beside a Python integer it would make floats of them all, which are not exact either.
        start = np.uint64(int.from_bytes(digest[:8], "little"))
        place = int(self._starts.searchsorted(start))
        while place < len(self._starts) and self._starts[place] == start:
            row = int(self._order[place])
            if self._table["digest"][row] == digest:
                return row
            place += 1
        return None
