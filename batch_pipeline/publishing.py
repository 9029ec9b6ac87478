"""The end of a service: its manifests, written once every input is accounted for."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import orjson

from batch_pipeline.accounting import Account, shown
from batch_pipeline.inputs import Input, InputList
from batch_pipeline.layout import OutputLayout, result_name
from batch_pipeline.locations import Location
from batch_pipeline.manifest import error_line, result_line
from batch_pipeline.models.schema import Schema
from batch_pipeline.node.job import UnitError
from batch_pipeline.node_records import load_node_records
from batch_pipeline.output_folder import drop_unfinished
from batch_pipeline.parameters import ServiceParameters
from batch_pipeline.plan import Plan, load_plan
from batch_pipeline.review.examples import MOST as MOST_EXAMPLES
from batch_pipeline.review.examples import examples
from batch_pipeline.review.report import review
from batch_pipeline.review.sampling import Chosen, chosen_lines
from batch_pipeline.storage import Storage
from batch_pipeline.summary import Summary

FIRST_ERRORS = 20


def publish(
    inputs: InputList,
    layout: OutputLayout,
    parameters: ServiceParameters,
    check_owner: Callable[[], None],
    *,
    response: Schema | None = None,
) -> Summary:
    """Raises AccountingFailed, before any manifest, where an input has no outcome or a result is not there.

    `response`: what the model's API says its answers are, if it does; the review of the service compares them.
    """
    storage = inputs.storage
    plan = load_plan(storage, layout)
    with (
        Account(storage, layout, plan, replace(inputs, etag=plan.input_etag)) as account,
        tempfile.TemporaryDirectory(prefix="batch-pipeline-") as folder,
    ):
        check_owner()
        drafts = _Drafts(Path(folder), layout, plan, chosen_lines(account.frames()))
        for node, item, row in account.listed():
            drafts.add(node, item, row)
        drafts.close()
        summary = drafts.summary(plan, parameters)
        if summary.inputs != plan.inputs:
            raise account.gone(plan.inputs - summary.inputs)
        records = load_node_records(storage, layout)
        reviewed = review(
            storage, account.frames(), drafts.chosen(), records, join_input=plan.join_input, response=response
        )
        check_owner()
        drafts.upload(storage)
    summary = replace(summary, sample=examples(storage, records, drafts.sampled), review=reviewed)
    # The records hold no source, and these name some.
    kept = asdict(replace(summary, message="", sample=(), first_errors=()))
    # First what is no longer needed: who finds the summary finds nothing left to do.
    storage.delete(info.location for info in storage.list(layout.parts))
    drop_unfinished(storage, layout)
    storage.write(layout.finished, orjson.dumps(kept))
    return summary


def unpublish(storage: Storage, layout: OutputLayout, node_count: int) -> None:
    """Takes an earlier attempt's manifests away: who sees all of them must see a finished service."""
    storage.delete(layout.result_manifest(node) for node in range(node_count))
    storage.delete([*(layout.error_manifest(node) for node in range(node_count)), layout.finished])
    storage.delete(info.location for info in storage.list(layout.records.child("progress/")))


class _Drafts:
    """The manifests, written to local files first: none may appear before all can."""

    def __init__(self, folder: Path, layout: OutputLayout, plan: Plan, chosen: dict[int, int]) -> None:
        self._layout = layout
        self._stack = ExitStack()
        nodes = [shard.node for shard in plan.shards]
        self._results = {node: self._draft(folder / f"result-{node}") for node in nodes}
        self._errors = {node: self._draft(folder / f"error-{node}") for node in nodes}
        self._succeeded = self._failed = self._rows = self._failed_rows = self._size = 0
        self._first_errors: list[dict[str, Any]] = []
        self.sampled: list[tuple[str | None, Location]] = []
        self._ranks = chosen
        self._chosen: list[Chosen] = []

    def _draft(self, path: Path) -> IO[bytes]:
        return self._stack.enter_context(path.open("w+b"))

    def add(self, node: int, item: Input, row: dict[str, Any]) -> None:
        if item.error is not None:
            line = error_line(item.token, item.error.code, item.error.message, line=item.line)
            self._fail(node, item, line, item.error.code, item.error.message)
            return
        outcome = row["outcome"]
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
        if len(self.sampled) < MOST_EXAMPLES:
            self.sampled.append((shown(item), result))
        if row["line"] in self._ranks:
            self._chosen.append(Chosen(row["line"], result, outcome.size, outcome.rows or 1))

    def chosen(self) -> list[Chosen]:
        """The results to be looked at, in the order in which they were chosen."""
        return sorted(self._chosen, key=lambda one: self._ranks[one.line])

    def _fail(self, node: int, item: Input, line: bytes, code: str, message: str) -> None:
        self._failed += 1
        self._errors[node].write(line)
        self._note(item, code, message)

    def _note(self, item: Input, code: str, message: str) -> None:
        if len(self._first_errors) < FIRST_ERRORS:
            self._first_errors.append({"source": shown(item), "line": item.line, "code": code, "message": message})

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
        where = first["source"] or f"line {first['line']}"
        return replace(
            summary,
            state="failed",
            message=f"{summary.failed} of {summary.inputs} inputs and "
            f"{summary.failed_rows} of {summary.rows} rows failed, "
            f"more than error_threshold {parameters.error_threshold:g} allows; "
            f"the first: {where}: {first['message']} (see {self._layout.output}infer-error-*.manifest)",
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
