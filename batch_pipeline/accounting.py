"""What became of every input, proved from the ledger and from storage; divided CSVs are put together on the way."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from batch_pipeline.errors import AccountingFailed
from batch_pipeline.inputs import Input, InputList
from batch_pipeline.layout import OutputLayout, result_digest, result_name
from batch_pipeline.ledger import WHOLE, Ledger, append, fold
from batch_pipeline.locations import Location
from batch_pipeline.node.job import UnitError, UnitResult
from batch_pipeline.plan import Plan, ShardPlan
from batch_pipeline.shard import shard_rows
from batch_pipeline.storage import Storage

if TYPE_CHECKING:
    import polars as pl

COMPOSED_AT_ONCE = 8


@dataclass(frozen=True)
class Result:
    """An input that has a result."""

    size: int
    rows: int | None
    failed_rows: int | None


Outcome = Result | UnitError


def finished_units(storage: Storage, layout: OutputLayout, shard: pl.DataFrame) -> set[tuple[int, int]]:
    """The units (line, part) of a shard that are done: the ledger and storage both have their result."""
    ledger = fold(storage, layout)
    results = _sizes(storage, layout.results)
    parts = {info.location.name: info.size for info in storage.list(layout.parts)}
    done = set()
    for row in shard.iter_rows(named=True):
        whole = ledger.results.get((row["line"], WHOLE))
        if whole is not None and results.get(row["result"]) == whole.size:
            done.add((row["line"], row["part"]))
            continue
        found = _valid(ledger, row)
        stored = parts.get(f"{row['line']}-{row['part']}") if row["parts"] > 1 else results.get(row["result"])
        if found is not None and stored == found.size:
            done.add((row["line"], row["part"]))
    return done


def outcomes_of(
    storage: Storage, layout: OutputLayout, plan: Plan, shards: list[pl.DataFrame], inputs: InputList
) -> dict[int, Outcome]:
    """What became of every line that was computed. Divided CSVs whose parts are all there are put together."""
    ledger = fold(storage, layout)
    outcomes: dict[int, Outcome] = {}
    parts: dict[int, list[tuple[dict[str, Any], UnitResult | UnitError | None]]] = {}
    missing = 0
    for row in _work(shards):
        found = _valid(ledger, row) or ledger.errors.get((row["line"], row["part"]))
        whole = ledger.results.get((row["line"], WHOLE))
        if row["parts"] > 1 and whole is None:
            parts.setdefault(row["line"], []).append((row, found))
        elif whole is not None:
            outcomes[row["line"]] = Result(whole.size, whole.rows, whole.failed_rows)
        elif isinstance(found, UnitResult):
            outcomes[row["line"]] = Result(found.size, found.rows, found.failed_rows)
        elif found is not None:
            outcomes[row["line"]] = found
        else:
            missing += 1
    missing += sum(any(found is None for _, found in pieces) for pieces in parts.values())
    if missing:
        raise AccountingFailed(
            f"{missing} of {plan.inputs} inputs have no outcome in the ledger ({layout.ledger}): "
            "a node did not end its work. No manifest was written; run the service again to continue"
        )
    outcomes |= _put_together(storage, layout, plan, shards, inputs, parts)
    _prove(storage, layout, shards, outcomes)
    return outcomes


def _work(shards: list[pl.DataFrame]) -> Iterator[dict[str, Any]]:
    for shard in shards:
        yield from shard.filter(~shard["bad"] & shard["duplicate_of"].is_null()).iter_rows(named=True)


def _valid(ledger: Ledger, row: dict[str, Any]) -> UnitResult | None:
    """The unit's result, if it was made from the object that the plan has."""
    found = ledger.results.get((row["line"], row["part"]))
    if found is None or found.digest != row["digest"].hex():
        return None
    return found if row["parts"] == 1 or found.etag == row["etag"] else None


def _put_together(
    storage: Storage,
    layout: OutputLayout,
    plan: Plan,
    shards: list[pl.DataFrame],
    inputs: InputList,
    parts: dict[int, list[tuple[dict[str, Any], UnitResult | UnitError | None]]],
) -> dict[int, Outcome]:
    """Composes the results of divided CSVs in storage; a CSV with a part that failed has failed."""
    outcomes: dict[int, Outcome] = {}
    whole: dict[int, list[UnitResult]] = {}
    for line, pieces in parts.items():
        failed = [found for _, found in pieces if isinstance(found, UnitError)]
        if failed:
            outcomes[line] = replace(failed[0], part=0)
        else:
            found = [result for _, result in pieces if isinstance(result, UnitResult)]
            whole[line] = sorted(found, key=lambda result: result.part)
    targets = {
        row["line"]: layout.result(result_name(item.name, row["suffix"]))
        for _, item, row in (listed(shards, inputs) if whole else ())
        if row["line"] in whole
    }
    gone = whole.keys() - targets.keys()
    if gone:
        raise AccountingFailed(f"{len(gone)} inputs are no longer in {inputs.location}; no manifest was written")

    def compose(line: int) -> UnitResult:
        pieces = whole[line]
        size = storage.compose(targets[line], [layout.part(line, piece.part) for piece in pieces]).size
        rows = sum(piece.rows or 0 for piece in pieces)
        failed_rows = sum(piece.failed_rows or 0 for piece in pieces)
        return UnitResult(line, pieces[0].digest, WHOLE, pieces[0].etag, size, rows, failed_rows)

    with ThreadPoolExecutor(COMPOSED_AT_ONCE) as pool:
        composed = list(pool.map(compose, whole))
    append(storage, layout, composed, attempt=plan.attempt, name="composed")
    return outcomes | {result.line: Result(result.size, result.rows, result.failed_rows) for result in composed}


def _prove(storage: Storage, layout: OutputLayout, shards: list[pl.DataFrame], outcomes: dict[int, Outcome]) -> None:
    """Every result that the ledger has stands in storage, as large as it was written."""
    stored = _sizes(storage, layout.results)
    for row in _work(shards):
        outcome = outcomes[row["line"]]
        if isinstance(outcome, Result) and stored.get(row["result"]) != outcome.size:
            raise AccountingFailed(
                f"the result of input line {row['line']} is not in {layout.results} as it was written; "
                "no manifest was written. Run the service again to make it anew"
            )


def _sizes(storage: Storage, folder: Location) -> dict[bytes, int]:
    return {result_digest(info.location.key[len(folder.key) :]): info.size for info in storage.list(folder)}


def listed(shards: list[pl.DataFrame], inputs: InputList) -> Iterator[tuple[int, Input, dict[str, Any]]]:
    """Every input with the node that has its first row, and that row, in input order: the list is read once."""
    import polars as pl

    first = pl.concat(shards).filter(pl.col("part") == 0).sort("line")
    for item, rows in shard_rows(first, inputs, ShardPlan(0, 1, 0, 0, 0, 0, 0)):
        yield rows[0]["node"], item, rows[0]
