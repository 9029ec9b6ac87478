"""The end of a service: what the ledger and storage say is proved, divided CSVs are put together, manifests written."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import orjson

from batch_pipeline.errors import AccountingFailed, ObjectNotFound
from batch_pipeline.inputs import Input, InputList
from batch_pipeline.layout import OutputLayout, result_digest
from batch_pipeline.ledger import WHOLE, Ledger, append, fold
from batch_pipeline.locations import Location, ShareLink
from batch_pipeline.manifest import error_line, result_line
from batch_pipeline.node.job import Progress, UnitError, UnitResult
from batch_pipeline.parameters import ServiceParameters
from batch_pipeline.planning import Plan, load_plan, load_table, result_name, shard_plan, shard_rows
from batch_pipeline.storage import Storage

if TYPE_CHECKING:
    import polars as pl

FIRST_ERRORS = 20
SAMPLE = 5
SAMPLE_BYTES = 16 * 1024
COMPOSED_AT_ONCE = 8


@dataclass(frozen=True)
class Summary:
    """How a service ended. `first_errors` and `sample` are for people; storage keeps the rest."""

    state: Literal["finished", "failed"]
    message: str
    """Why it failed, in one line; empty where it did not."""
    inputs: int
    succeeded: int
    failed: int
    rows: int
    failed_rows: int
    size: int
    """Bytes of all results."""
    nodes: int
    seconds: float
    """From the attempt's plan to the last manifest."""
    result_manifests: tuple[str, ...]
    error_manifests: tuple[str, ...]
    already_finished: bool = False
    sample: tuple[dict[str, Any], ...] = ()
    """{"source", "answer"} of a few inputs."""
    first_errors: tuple[dict[str, Any], ...] = ()
    """{"source", "line", "code", "message"} of a few failed inputs."""

    @property
    def failed_share(self) -> float:
        """The larger of failed inputs ÷ inputs and failed rows ÷ rows."""
        return max(
            self.failed / self.inputs if self.inputs else 0.0, self.failed_rows / self.rows if self.rows else 0.0
        )


@dataclass(frozen=True)
class _Result:
    """An input that has a result."""

    size: int
    rows: int | None
    failed_rows: int | None


_Outcome = _Result | UnitError


def load_summary(storage: Storage, layout: OutputLayout) -> Summary | None:
    try:
        record = orjson.loads(storage.read(layout.finished))
    except ObjectNotFound:
        return None
    record["result_manifests"] = tuple(record["result_manifests"])
    record["error_manifests"] = tuple(record["error_manifests"])
    return Summary(**record)


def is_finished(storage: Storage, layout: OutputLayout, parameters: ServiceParameters) -> bool:
    """Whether nothing is left to do: all manifests stand, and no larger share failed than is allowed now."""
    summary = load_summary(storage, layout)
    if summary is None or summary.failed_share > parameters.error_threshold:
        return False
    try:
        for node in range(parameters.node_count):
            storage.head(layout.result_manifest(node))
    except ObjectNotFound:
        return False
    return True


def unpublish(storage: Storage, layout: OutputLayout, node_count: int) -> None:
    """Takes an earlier attempt's manifests away: who sees all of them must see a finished service."""
    storage.delete(layout.result_manifest(node) for node in range(node_count))
    storage.delete([*(layout.error_manifest(node) for node in range(node_count)), layout.finished])
    storage.delete(info.location for info in storage.list(layout.records.child("progress/")))


def progress(storage: Storage, layout: OutputLayout, service: str) -> Progress:
    """All nodes' progress added up; all zero before the service has a plan here."""
    try:
        plan = load_plan(storage, layout)
    except ObjectNotFound:
        return Progress()
    if plan.service != service:
        return Progress()
    total = Progress(units=plan.inputs)
    for shard in plan.shards:
        try:
            node = Progress(**orjson.loads(storage.read(layout.progress(shard.node))))
        except ObjectNotFound:
            continue
        total = Progress(
            total.done + node.done,
            total.failed + node.failed,
            total.units,
            total.rows + node.rows,
            total.failed_rows + node.failed_rows,
            total.bytes_read + node.bytes_read,
        )
    return total


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


def publish(
    inputs: InputList, layout: OutputLayout, parameters: ServiceParameters, check_owner: Callable[[], None]
) -> Summary:
    """Raises AccountingFailed, before any manifest, where an input has no outcome or a result is not there."""
    storage = inputs.storage
    plan = load_plan(storage, layout)
    shards = [load_table(storage, layout.shard(shard.node)) for shard in plan.shards]
    outcomes = _outcomes(storage, layout, plan, shards, replace(inputs, etag=plan.input_etag))
    check_owner()
    with tempfile.TemporaryDirectory(prefix="batch-pipeline-") as folder:
        drafts = _Drafts(Path(folder), layout, plan)
        for node, item, row in _listed(shards, replace(inputs, etag=plan.input_etag)):
            drafts.add(node, item, row, outcomes)
        drafts.close()
        summary = drafts.summary(plan, parameters)
        if summary.inputs != plan.inputs:
            raise AccountingFailed(
                f"{plan.inputs - summary.inputs} of {plan.inputs} inputs are no longer in {inputs.location}; "
                "no manifest was written. Put them back, or run the service again with --overwrite"
            )
        check_owner()
        drafts.upload(storage)
    summary = replace(summary, sample=tuple(_sample(storage, drafts.sampled)))
    # The records hold no source, and these name some.
    kept = asdict(replace(summary, message="", sample=(), first_errors=()))
    storage.write(layout.finished, orjson.dumps(kept))
    storage.delete(info.location for info in storage.list(layout.parts))
    return summary


def _outcomes(
    storage: Storage, layout: OutputLayout, plan: Plan, shards: list[pl.DataFrame], inputs: InputList
) -> dict[int, _Outcome]:
    """What became of every line that was computed. Divided CSVs whose parts are all there are put together."""
    ledger = fold(storage, layout)
    outcomes: dict[int, _Outcome] = {}
    parts: dict[int, list[tuple[dict[str, Any], UnitResult | UnitError | None]]] = {}
    missing = 0
    for row in _work(shards):
        found = _valid(ledger, row) or ledger.errors.get((row["line"], row["part"]))
        whole = ledger.results.get((row["line"], WHOLE))
        if row["parts"] > 1 and whole is None:
            parts.setdefault(row["line"], []).append((row, found))
        elif whole is not None:
            outcomes[row["line"]] = _Result(whole.size, whole.rows, whole.failed_rows)
        elif isinstance(found, UnitResult):
            outcomes[row["line"]] = _Result(found.size, found.rows, found.failed_rows)
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
) -> dict[int, _Outcome]:
    """Composes the results of divided CSVs in storage; a CSV with a part that failed has failed."""
    outcomes: dict[int, _Outcome] = {}
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
        for _, item, row in (_listed(shards, inputs) if whole else ())
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
    return outcomes | {result.line: _Result(result.size, result.rows, result.failed_rows) for result in composed}


def _prove(storage: Storage, layout: OutputLayout, shards: list[pl.DataFrame], outcomes: dict[int, _Outcome]) -> None:
    """Every result that the ledger has stands in storage, as large as it was written."""
    stored = _sizes(storage, layout.results)
    for row in _work(shards):
        outcome = outcomes[row["line"]]
        if isinstance(outcome, _Result) and stored.get(row["result"]) != outcome.size:
            raise AccountingFailed(
                f"the result of input line {row['line']} is not in {layout.results} as it was written; "
                "no manifest was written. Run the service again to make it anew"
            )


def _sizes(storage: Storage, folder: Location) -> dict[bytes, int]:
    return {result_digest(info.location.key[len(folder.key) :]): info.size for info in storage.list(folder)}


def _listed(shards: list[pl.DataFrame], inputs: InputList) -> Iterator[tuple[int, Input, dict[str, Any]]]:
    """Every input with the node that has its first row, and that row, in input order: the list is read once."""
    import polars as pl

    first = pl.concat(shards).filter(pl.col("part") == 0).sort("line")
    for item, rows in shard_rows(first, inputs, shard_plan(0, first)):
        yield rows[0]["node"], item, rows[0]


class _Drafts:
    """The manifests, written to local files first: none may appear before all can."""

    def __init__(self, folder: Path, layout: OutputLayout, plan: Plan) -> None:
        self._layout = layout
        self._stack = ExitStack()
        nodes = [shard.node for shard in plan.shards]
        self._results = {node: self._draft(folder / f"result-{node}") for node in nodes}
        self._errors = {node: self._draft(folder / f"error-{node}") for node in nodes}
        self._succeeded = self._failed = self._rows = self._failed_rows = self._size = 0
        self._first_errors: list[dict[str, Any]] = []
        self.sampled: list[tuple[str | None, Location]] = []

    def _draft(self, path: Path) -> IO[bytes]:
        return self._stack.enter_context(path.open("w+b"))

    def add(self, node: int, item: Input, row: dict[str, Any], outcomes: dict[int, _Outcome]) -> None:
        if item.error is not None:
            line = error_line(item.token, item.error.code, item.error.message, line=item.line)
            self._fail(node, item, line, item.error.code, item.error.message)
            return
        outcome = outcomes[row["duplicate_of"] or row["line"]]
        if isinstance(outcome, UnitError):
            self._fail(node, item, error_line(item.token, outcome.code, outcome.message), outcome.code, outcome.message)
            return
        result = self._layout.result(result_name(item.name, row["suffix"]))
        self._succeeded += 1
        self._rows += outcome.rows or 0
        self._failed_rows += outcome.failed_rows or 0
        self._size += outcome.size if row["duplicate_of"] is None else 0
        self._results[node].write(result_line(item.token, result))
        if outcome.failed_rows:
            message = f"{outcome.failed_rows} of {outcome.rows} rows failed; their lines in the result say why"
            self._errors[node].write(error_line(item.token, "failed_rows", message, failed_rows=outcome.failed_rows))
            self._note(item, "failed_rows", message)
        if len(self.sampled) < SAMPLE:
            self.sampled.append((_shown(item), result))

    def _fail(self, node: int, item: Input, line: bytes, code: str, message: str) -> None:
        self._failed += 1
        self._errors[node].write(line)
        self._note(item, code, message)

    def _note(self, item: Input, code: str, message: str) -> None:
        if len(self._first_errors) < FIRST_ERRORS:
            self._first_errors.append({"source": _shown(item), "line": item.line, "code": code, "message": message})

    def close(self) -> None:
        """The drafts are read back after this."""
        for draft in (*self._results.values(), *self._errors.values()):
            draft.flush()

    def summary(self, plan: Plan, parameters: ServiceParameters) -> Summary:
        summary = Summary(
            state="finished",
            message="",
            inputs=self._succeeded + self._failed,
            succeeded=self._succeeded,
            failed=self._failed,
            rows=self._rows,
            failed_rows=self._failed_rows,
            size=self._size,
            nodes=len(plan.shards),
            seconds=time.time() - plan.started,
            result_manifests=tuple(self._layout.result_manifest(node).uri for node in self._results),
            error_manifests=tuple(
                self._layout.error_manifest(node).uri for node, draft in self._errors.items() if draft.tell()
            ),
            first_errors=tuple(self._first_errors),
        )
        if summary.failed_share <= parameters.error_threshold:
            return summary
        first = self._first_errors[0]
        return replace(
            summary,
            state="failed",
            message=f"{summary.failed} of {summary.inputs} inputs and "
            f"{summary.failed_rows} of {summary.rows} rows failed, "
            f"more than error_threshold {parameters.error_threshold:g} allows; "
            f"the first: {first['source']}: {first['message']} (see {self._layout.output}infer-error-*.manifest)",
        )

    def upload(self, storage: Storage) -> None:
        """Error manifests first: who sees all result manifests sees a finished service."""
        for node, draft in self._errors.items():
            if draft.tell():
                _upload(storage, draft, self._layout.error_manifest(node))
        for node, draft in self._results.items():
            _upload(storage, draft, self._layout.result_manifest(node))
        self._stack.close()


def _upload(storage: Storage, draft: IO[bytes], target: Location) -> None:
    draft.seek(0)
    with storage.open_writer(target) as writer:
        while chunk := draft.read(8 * 1024 * 1024):
            writer.write(chunk)


def _shown(item: Input) -> str | None:
    """The source as logs and pages may show it: a share link without its signature."""
    if isinstance(item.source, ShareLink):
        return item.source.identity
    shown = orjson.loads(item.token)
    return shown if isinstance(shown, str) and "?" not in shown else None


def _sample(storage: Storage, results: list[tuple[str | None, Location]]) -> Iterator[dict[str, Any]]:
    for source, location in results:
        head = storage.read(location, start=0, end=SAMPLE_BYTES) if storage.head(location).size else b""
        first, found, _ = head.partition(b"\n")
        if found:
            yield {"source": source, "answer": orjson.loads(first)}
