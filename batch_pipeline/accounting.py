"""What became of every input, proved from the ledger and from storage; divided CSVs are put together on the way.

It is done for some 100,000 lines at a time, which are set aside on the local disk before and after: memory stays flat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import orjson

from batch_pipeline import locations
from batch_pipeline.divided_results import put_together
from batch_pipeline.errors import AccountingFailed, InputMissing
from batch_pipeline.inputs import Input, InputList
from batch_pipeline.layout import OutputLayout, result_digest, result_name
from batch_pipeline.ledger import recorded
from batch_pipeline.locations import ShareLink
from batch_pipeline.node.job import UnitError, UnitResult
from batch_pipeline.outcomes import OUTCOME, missing_lines, settled, to_put_together, with_outcomes
from batch_pipeline.pairing import paired
from batch_pipeline.plan import Plan, stored_tables
from batch_pipeline.proof import Proof
from batch_pipeline.spill import Spill, parts_for
from batch_pipeline.storage import Storage

if TYPE_CHECKING:
    import polars as pl

FIRST_MISSING = 10
PLANNED = ["line", "digest", "size", "etag", "duplicate_of", "suffix", "result", "bad", "node", "part", "parts"]


@dataclass(frozen=True)
class Result:
    """An input that has a result."""

    size: int
    rows: int | None
    failed_rows: int | None


Outcome = Result | UnitError


class Account:
    """The outcomes of a plan's inputs. A context manager: what it holds on the disk is gone after the block.

    Making one puts divided CSVs together. Raises AccountingFailed where an input has no outcome, or its result is
    not in storage as it was written.
    """

    def __init__(self, storage: Storage, layout: OutputLayout, plan: Plan, inputs: InputList) -> None:
        self._storage, self._layout, self._plan, self._inputs = storage, layout, plan, inputs
        self._parts = parts_for(plan.inputs)
        self._width = max((shard.last_line for shard in plan.shards), default=0) // self._parts + 1
        self._outcomes = Spill()
        self._proof = Proof(self._parts)
        self._divided: dict[int, list[UnitResult]] = {}
        self._composed = _table([])
        self._missing = 0
        self._first_missing: list[int] = []
        try:
            self._settle()
        except BaseException:
            self.close()
            raise

    def frames(self) -> Iterator[pl.DataFrame]:
        """One row an input, in order: line, node, digest, size and suffix as planned, duplicate_of, bad, and what
        became of it: code and message of its error, or result_size, rows and failed_rows."""
        for part in range(self._parts):
            frame = self._outcomes.read(part)
            if frame is not None:
                yield self._with_composed(frame)

    def listed(self) -> Iterator[tuple[int, Input, dict[str, Any]]]:
        """Every input with the node that lists it and its row, in order: the list is read once.

        The row has `outcome`, which is None for a bad line.
        """
        for item, (row,) in paired(self.frames(), self._inputs):
            yield row["node"], item, {**row, "outcome": _outcome(row)}

    def _settle(self) -> None:
        with Spill() as planned, Spill() as ledger, Spill() as repeats, Spill() as answers:
            self._set_aside(planned, ledger, repeats)
            for part in range(self._parts):
                rows = planned.read(part)
                if rows is not None:
                    self._settle_range(part, rows, ledger.read(part), repeats.read(part), answers)
        if self._missing:
            raise self._without_outcome()
        self._put_together()
        self._prove()

    def _set_aside(self, planned: Spill, ledger: Spill, repeats: Spill) -> None:
        """The plan and the ledger, each by ranges of lines."""
        import polars as pl

        for shard in self._plan.shards:
            with stored_tables(self._storage, self._layout.shard(shard.node)) as stored:
                for table in stored.of_node(shard.node, PLANNED):
                    planned.add(table, self._range("line"))
                    repeated = table.filter(pl.col("duplicate_of").is_not_null()).select("line", "duplicate_of")
                    repeats.add(repeated, self._range("duplicate_of"))
        planned.seal()
        repeats.seal()
        for outcomes in recorded(self._storage, self._layout, self._plan.division):
            known = outcomes.filter(pl.col("line") // self._width < self._parts)
            ledger.add(known, self._range("line"))
        ledger.seal()

    def _settle_range(
        self, part: int, rows: pl.DataFrame, ledger: pl.DataFrame | None, repeats: pl.DataFrame | None, answers: Spill
    ) -> None:
        import polars as pl

        units = with_outcomes(rows.filter(~pl.col("bad") & pl.col("duplicate_of").is_null()), ledger)
        missing = missing_lines(units)
        self._missing += missing.len()
        self._first_missing.extend(missing[: FIRST_MISSING - len(self._first_missing)])
        known = settled(units)
        for row in to_put_together(units).iter_rows(named=True):
            made = UnitResult(
                row["line"],
                row["digest"].hex(),
                row["part"],
                row["etag"],
                row["result_size"],
                row["rows"],
                row["failed_rows"],
            )
            self._divided.setdefault(made.line, []).append(made)
        if repeats is not None:
            # What a repeated source comes to is known before the lines that repeat it are met.
            found = repeats.join(known.rename({"line": "duplicate_of"}), on="duplicate_of", how="left")
            answers.add(found.select("line", *OUTCOME), self._range("line"))
        repeated = answers.read(part)
        known = known if repeated is None else pl.concat([known, repeated])
        listed = rows.filter(pl.col("part") == 0).join(known, on="line", how="left").sort("line")
        self._proof.expect(listed.filter(pl.col("duplicate_of").is_null() & pl.col("result_size").is_not_null()))
        self._outcomes.add(listed.drop("result", "etag", "part", "parts"), pl.lit(part))
        self._outcomes.seal()

    def _put_together(self) -> None:
        """Composes the results of divided CSVs in storage."""
        import polars as pl

        wanted = (frame.filter(frame["line"].is_in(list(self._divided))) for frame in self.frames())
        items = paired(wanted, self._inputs) if self._divided else ()
        names = {row["line"]: result_name(item.name, row["suffix"]) for item, (row,) in items}
        gone = self._divided.keys() - names.keys()
        if gone:
            raise self._unaccounted(
                f"{len(gone)} inputs are no longer in {self._inputs.location}; no manifest was written",
                len(gone),
                sorted(gone)[:FIRST_MISSING],
            )
        composed = put_together(self._storage, self._layout, self._plan, self._divided, names)
        known = {one.line for one in composed}
        lost = [line for line in self._divided if line not in known]
        if lost:
            others = f" and of {len(lost) - 1} others" if len(lost) > 1 else ""
            raise self._unaccounted(
                f"parts of the result of input line {lost[0]}{others} are not in {self._layout.parts} as they were "
                "written; no manifest was written. Run the service again to make them anew",
                len(lost),
                lost[:FIRST_MISSING],
            )
        self._composed = _table(composed)
        digests = [result_digest(names[one.line]) for one in composed]
        expected = self._composed.with_columns(result=pl.Series(digests, dtype=pl.Binary))
        self._proof.expect(expected.filter(pl.col("result_size").is_not_null()))

    def _prove(self) -> None:
        """Every result that the ledger has stands in storage, as large as it was written."""
        lost, first = self._proof.lost(self._storage, self._layout, FIRST_MISSING)
        if lost:
            others = f" and those of {lost - 1} others" if lost > 1 else ""
            raise self._unaccounted(
                f"the result of input line {first[0]}{others} is not in {self._layout.results} as it was written; "
                "no manifest was written. Run the service again to make it anew",
                lost,
                first,
            )

    def _without_outcome(self) -> AccountingFailed:
        why = "a node did not end its work. No manifest was written; run the service again to continue"
        if not self._listed(self._first_missing):
            why = (
                f"the first are no longer in {self._inputs.location}. "
                "No manifest was written; put them back, or run the service again with --overwrite"
            )
        return self._unaccounted(
            f"{self._missing} of {self._plan.inputs} inputs have no outcome in the ledger ({self._layout.ledger}): "
            + why,
            self._missing,
            self._first_missing,
        )

    def gone(self, count: int) -> AccountingFailed:
        """The error of so many inputs that `listed` did not find; the list is read once more to say which."""
        there = (row["line"] for _, (row,) in paired(self.frames(), self._inputs))
        following = next(there, None)
        first: list[int] = []
        for line in (line for frame in self.frames() for line in frame["line"]):
            if line == following:
                following = next(there, None)
            elif len(first) < FIRST_MISSING:
                first.append(line)
        return self._unaccounted(
            f"{count} of {self._plan.inputs} inputs are no longer in {self._inputs.location}; "
            "no manifest was written. Put them back, or run the service again with --overwrite",
            count,
            first,
        )

    def _unaccounted(self, message: str, count: int, first: list[int]) -> AccountingFailed:
        """The error of the inputs of so many lines. The first are named, as far as the input list still has them."""
        names = self._listed(first)
        rows = tuple({"line": line, "source": names.get(line)} for line in first)
        return AccountingFailed(message, self._plan.inputs, count, rows)

    def _listed(self, lines: list[int]) -> dict[int, str | None]:
        """Which of these lines the input list still has, with their sources as they may be shown."""
        wanted = (frame.filter(frame["line"].is_in(lines)) for frame in self.frames())
        try:
            return {row["line"]: shown(item) for item, (row,) in paired(wanted, self._inputs)}
        except InputMissing:
            # The list was taken away or rewritten; what is to be told is that inputs are missing.
            return {}

    def _with_composed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame with the results that were put together after it was set aside."""
        import polars as pl

        if self._composed.is_empty():
            return frame
        made = self._composed.rename({"line": "first"})
        first = pl.coalesce("duplicate_of", "line").alias("first")
        joined = frame.with_columns(first).join(made, on="first", how="left", suffix="_made", maintain_order="left")
        return joined.with_columns(pl.coalesce(name, f"{name}_made").alias(name) for name in OUTCOME).drop(
            "first", *(f"{name}_made" for name in OUTCOME)
        )

    def _range(self, line: str) -> pl.Expr:
        import polars as pl

        return pl.col(line) // self._width

    def close(self) -> None:
        self._outcomes.close()
        self._proof.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def shown(item: Input) -> str | None:
    """The source as logs and pages may show it: a share link without its signature, misspelt as it may be."""
    if isinstance(item.source, ShareLink):
        return item.source.identity
    source = orjson.loads(item.token)
    return locations.shown(source) if isinstance(source, str) else None


def _table(composed: list[UnitResult | UnitError]) -> pl.DataFrame:
    """Columns line and OUTCOME."""
    import polars as pl

    rows = [
        (one.line, one.code, one.message, None, None, None)
        if isinstance(one, UnitError)
        else (one.line, None, None, one.size, one.rows, one.failed_rows)
        for one in composed
    ]
    numbers = dict.fromkeys(("result_size", "rows", "failed_rows"), pl.Int64)
    return pl.DataFrame(rows, {"line": pl.UInt64, "code": pl.String, "message": pl.String, **numbers}, orient="row")


def _outcome(row: dict[str, Any]) -> Outcome | None:
    if row["code"] is not None:
        return UnitError(row["line"], row["digest"].hex(), 0, row["code"], row["message"])
    return None if row["bad"] else Result(row["result_size"], row["rows"], row["failed_rows"])
