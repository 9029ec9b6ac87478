"""The proof that every result which the ledger has stands in storage, as large as it was written: in flat memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from batch_pipeline.errors import AccountingFailed
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

    def check(self, storage: Storage, layout: OutputLayout) -> None:
        """Raises AccountingFailed that names the first line whose result is not there as it should be."""

        with Spill() as stored:
            for found in stored_results(storage, layout):
                stored.add(found, self._part())
            wrong: list[int] = []
            for part in range(self._parts):
                expected, there = self._expected.read(part), stored.read(part)
                if expected is not None:
                    lacking = (
                        expected if there is None else expected.join(there, on=["result", "result_size"], how="anti")
                    )
                    wrong.extend(lacking["line"].bottom_k(1))
        if wrong:
            raise AccountingFailed(
                f"the result of input line {min(wrong)} is not in {layout.results} as it was written; "
                "no manifest was written. Run the service again to make it anew"
            )

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
