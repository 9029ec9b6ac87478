"""What a run says in its log: a line for what was found, planned and published, and now and then one per node.

Counts and places only: no source, whose share link may be signed, and no parameter, which may be a secret.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from batch_pipeline.node.job import NodeReport, Progress
from batch_pipeline.parameters import ServiceParameters
from batch_pipeline.shard import Shard

if TYPE_CHECKING:
    from batch_pipeline.service import InputReport, MappingReport
    from batch_pipeline.summary import Summary

FIRST_SECONDS = 10.0
LARGEST_SECONDS = 60.0
SECONDS_A_NODE = 4.0
"""Many nodes together say something about so often."""

Say = Callable[[str], None]


def of_input(parameters: ServiceParameters, report: InputReport) -> str:
    notes = [f"{report.bad_lines:,} bad lines" if report.bad_lines else ""]
    notes += [f"{report.repeated:,} repeated" if report.repeated else "", f"attempt {report.attempt}"]
    end = "; an earlier attempt finished them all" if report.finished else ""
    known = f", {size(report.size)}" if report.size is not None else ""
    return f"{parameters.input_path}: {report.inputs:,} inputs{known} ({', '.join(filter(None, notes))}){end}"


def of_mapping(report: MappingReport) -> str:
    return f"model {report.model} (SHA-256 {report.model_sha256[:12]}…), request path {report.request_path}"


def of_plan(parameters: ServiceParameters, shards: tuple[Shard, ...]) -> str:
    if not shards:
        return "nothing is left to do: no node starts"
    counts = [shard.inputs for shard in shards]
    each = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
    return f"{sum(counts):,} inputs over {_many(len(shards), 'node')} of {parameters.node_spec}, {each} a node"


def of_start(shard: Shard) -> str:
    known = f", {size(shard.size)}" if shard.size else ""
    return f"{_name(shard)} starts on {shard.spec}: {shard.inputs:,} inputs{known}"


def of_end(shard: Shard, report: NodeReport) -> str:
    done, seconds = report.progress, report.seconds
    rows = f", {done.rows:,} rows ({done.failed_rows:,} failed)" if done.rows else ""
    rate = f", {done.rows / seconds:,.0f} rows/s" if done.rows and seconds > 0 else ""
    return (
        f"{_name(shard)} ends: {done.done:,} of {done.units:,} inputs done, {done.failed:,} failed{rows}; "
        f"{seconds:,.1f} s{rate}"
    )


def of_summary(parameters: ServiceParameters, summary: Summary) -> str:
    rows = f", {summary.rows:,} rows ({summary.failed_rows:,} failed)" if summary.rows else ""
    return (
        f"{summary.state}: {summary.inputs:,} inputs, {summary.succeeded:,} succeeded, {summary.failed:,} failed{rows};"
        f" {_many(len(summary.result_manifests), 'manifest')} in {parameters.output_path}"
    )


def size(count: int) -> str:
    """Bytes for people."""
    value, units = float(count), ("B", "kB", "MB", "GB", "TB")
    for unit in units:
        if value < 1000 or unit == units[-1]:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


class ProgressLog:
    """Says how far a node is: after ten seconds, then less and less often. For one thread."""

    def __init__(self, shard: Shard, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._shard, self._say, self._clock = shard, say, clock
        self._began = self._said = clock()
        self._wait = FIRST_SECONDS
        self._longest = max(LARGEST_SECONDS, SECONDS_A_NODE * shard.node_count)
        self._first: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        self._first = self._first or progress
        now = self._clock()
        if now - self._said < self._wait:
            return
        self._said, self._wait = now, min(2 * self._wait, self._longest)
        self._say(self._line(progress, self._first, now - self._began))

    def _line(self, now: Progress, first: Progress, seconds: float) -> str:
        rows = now.rows - first.rows
        rate = f"{rows / seconds:,.0f} rows/s" if rows else f"{(now.done - first.done) / seconds:,.1f} inputs/s"
        left = self._left(now, first, seconds)
        when = f", about {duration(left)} left" if left is not None else ""
        return f"{_name(self._shard)}: {now.done:,} of {now.units:,} inputs done, {now.failed:,} failed; {rate}{when}"

    def _left(self, now: Progress, first: Progress, seconds: float) -> float | None:
        """By bytes where nothing was done before and all sizes are known, which suits a few large inputs; else by
        inputs. None before there is anything to go by."""
        if self._shard.size and not first.done and now.bytes_read:
            return max(0.0, seconds * (self._shard.size / now.bytes_read - 1))
        done = now.done - first.done
        return seconds * (now.units - now.done) / done if done else None


def duration(seconds: float) -> str:
    """Seconds for people."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole} s" if minutes else f"{whole} s"


def _name(shard: Shard) -> str:
    """As its step and its manifest are numbered, from 0."""
    return f"node {shard.node} of {shard.node_count}"


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"
