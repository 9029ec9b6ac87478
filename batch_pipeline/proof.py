"""Whether every result that the ledger has stands in storage, as large as it was written: told in flat memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from batch_pipeline.layout import OutputLayout, result_digest
from batch_pipeline.spill import Spill
from batch_pipeline.storage import Storage

if TYPE_CHECKING:
    import polars as pl

LISTED_AT_ONCE = 10_000


class Proof:
    """What is expected, in partitions, to be compared with what there is."""

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._expected = Spill()

    def expect(self, results: pl.DataFrame) -> None:
        """Columns line, result (digest of its name) and result_size."""
        self._expected.add(results.select("line", "result", "result_size"), self._part())

    def lost(self, storage: Storage, layout: OutputLayout, most: int) -> tuple[int, list[int]]:
        """How many results are not there as they should be, and the first lines of these, at most so many."""
        count, first = 0, list[int]()
        with Spill() as stored:
            for found in stored_results(storage, layout):
                stored.add(found, self._part())
            for part in range(self._parts):
                expected, there = self._expected.read(part), stored.read(part)
                if expected is not None and there is not None:
                    expected = expected.join(there, on=["result", "result_size"], how="anti")
                if expected is not None:
                    count += expected.height
                    first = sorted([*first, *expected["line"].bottom_k(most)])[:most]
        return count, first

    def close(self) -> None:
        self._expected.close()

    def _part(self) -> pl.Expr:
        import polars as pl

        return pl.col("result").bin.slice(0, 4).bin.reinterpret(dtype=pl.UInt32) % self._parts


def stored_results(storage: Storage, layout: OutputLayout) -> Iterator[pl.DataFrame]:
    """What stands in storage, many results at a time: the digests of their names, and their sizes."""
    import polars as pl

    folder = layout.results
    infos = storage.list(folder)
    schema = {"result": pl.Binary, "result_size": pl.Int64}
    while batch := list(islice(infos, LISTED_AT_ONCE)):
        rows = [(result_digest(info.location.key[len(folder.key) :]), info.size) for info in batch]
        yield pl.DataFrame(rows, schema, orient="row")
