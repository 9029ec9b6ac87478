"""One node's share of a plan, made into a node's job and done."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from batch_pipeline.continuing import finished_units
from batch_pipeline.death_mark import DeathMark, death_mark
from batch_pipeline.deployment import Deployment
from batch_pipeline.errors import NodeFailed
from batch_pipeline.inputs import InputList
from batch_pipeline.layout import OutputLayout
from batch_pipeline.ledger import LedgerWriter
from batch_pipeline.locations import parse_location
from batch_pipeline.node.job import NodeJob, Progress
from batch_pipeline.node_records import NodeRecordWriter
from batch_pipeline.pairing import paired
from batch_pipeline.parameters import CsvOptions
from batch_pipeline.plan import Plan, load_shard
from batch_pipeline.shard import Shard, none_of, progress_before, units_of, work_of

if TYPE_CHECKING:
    from batch_pipeline.node_specs import NodeSpec

OnProgress = Callable[[Progress], None]

_log = logging.getLogger(__name__)


def run_share(
    shard: Shard,
    plan: Plan,
    deployment: Deployment,
    ledger: LedgerWriter,
    on_progress: OnProgress,
    *,
    threads: int,
    stopping: Callable[[], bool],
) -> tuple[Progress, tuple[dict[str, object], ...]]:
    """The node's progress, all attempts together, and a few answers. Raises NodeFailed, or ModelRefused."""
    _bound_readers(threads)
    storage, layout = deployment.storage, OutputLayout(shard.output)
    with death_mark(storage, layout, shard.node) as mark:
        return _run_share(shard, plan, deployment, ledger, on_progress, mark, threads=threads, stopping=stopping)


def _run_share(
    shard: Shard,
    plan: Plan,
    deployment: Deployment,
    ledger: LedgerWriter,
    on_progress: OnProgress,
    mark: DeathMark,
    *,
    threads: int,
    stopping: Callable[[], bool],
) -> tuple[Progress, tuple[dict[str, object], ...]]:
    from batch_pipeline.models.mapping import parse
    from batch_pipeline.node.apart import run_apart
    from batch_pipeline.node.run import run_node

    storage, layout = deployment.storage, OutputLayout(shard.output)
    spec = deployment.node_specs[shard.spec]
    spent = NodeRecordWriter(storage, layout, attempt=plan.attempt, node=shard.node, spec=spec)
    model = deployment.registry.resolve(plan.model)
    if model.digest != plan.model_digest:
        raise NodeFailed(
            f"the model {plan.model} was replaced after the service was planned; run it again with --overwrite"
        )
    binding = model.bind(plan.request_path)
    csv = CsvOptions(**plan.csv)
    mapping = (
        parse(plan.mapping, model.request_schema(plan.request_path), header=csv.header)
        if binding.kind == "json"
        else None
    )
    table = load_shard(storage, layout, shard.node)
    done = finished_units(storage, layout, plan.division, shard.node, table) if ledger.is_continued else none_of(table)
    share = plan.shards[shard.node]
    left = [work_of(table, done)]
    pairs = paired(left, _planned_inputs(plan, deployment), offset=share.offset, line=share.first_line)
    units = units_of(pairs, layout)
    base = progress_before(table, done)

    def so_far(current: Progress) -> Progress:
        return replace(current, done=current.done + base.done, failed=current.failed + base.failed, units=base.units)

    def report(current: Progress) -> None:
        ledger.report(so_far(current))
        spent.report(current)
        on_progress(so_far(current))

    job = NodeJob(
        units=units,
        unit_count=base.units - base.done,
        model_folder=deployment.registry.fetch(model),
        model_file=model.model_file,
        binding=binding,
        mapping=mapping,
        csv=csv,
        join_input=plan.join_input,
        threads=threads,
        providers=spec.providers,
        batch_seconds=deployment.settings.batch_seconds,
    )
    report(Progress())
    if mark.died:
        _log.warning("node %d: an earlier process died at its work; it goes on in one that is watched over", shard.node)
        final, sample, lost = run_apart(job, storage, deployment.share_links, ledger, report, stopping)
        mark.stays = lost > 0 or final.done < job.unit_count
    else:
        final, sample = run_node(job, storage, deployment.share_links, ledger, report, stopping)
    report(final)
    spent.save(final, sample)
    return so_far(final), sample


def _planned_inputs(plan: Plan, deployment: Deployment) -> InputList:
    """The input list as the plan has it."""
    location = parse_location(plan.input_path, allow_local=True)
    return InputList(deployment.storage, location, deployment.settings.allow_local_files, plan.input_etag)


def _bound_readers(threads: int) -> None:
    """Lets polars have no more threads either. It makes them once, when it first computes, which a node of its own
    process has not done by now; one that was forked may have it loaded, though.
    """
    if "polars" not in sys.modules:
        os.environ.setdefault("POLARS_MAX_THREADS", str(threads))
    elif multiprocessing.parent_process() is not None:
        import polars as pl

        os.environ.setdefault("POLARS_MAX_THREADS", str(threads))
        pl.Config.load("{}")  # has it read its variables again


def threads_of(spec: NodeSpec, at_once: int = 1) -> int:
    """How many threads a node computes on: never more than its spec has CPUs, nor than its part of this machine's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(spec.cpu, cores // max(1, at_once)))
