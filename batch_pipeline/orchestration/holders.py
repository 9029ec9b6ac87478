"""Which process executes a run, and what becomes of the runs whose process is gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun, RunsFilter

from batch_pipeline.orchestration.names import TAG_HOLDER, TAG_SERVICE
from batch_pipeline.ownership import Owner, ProcessIdentity

IN_PROGRESS = (
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
_GONE = "The process that executed this run ended without a word; what it finished is kept. Run the service again."


def holder_tag(process: ProcessIdentity, run_id: str) -> dict[str, str]:
    return {TAG_HOLDER: json.dumps({"run": run_id, **asdict(process)})}


def holder_of(run: DagsterRun) -> ProcessIdentity | None:
    """The process that executes the run, or None where none has said so.

    A re-execution has its parent's tags from the start: what they say of another run is not believed.
    """
    record = json.loads(run.tags.get(TAG_HOLDER, "{}"))
    return ProcessIdentity(**record) if record.pop("run", None) == run.run_id else None


def owner_of(run: DagsterRun, service: str) -> Owner:
    return Owner(run_id=run.run_id, service=service, process=holder_of(run))


def is_dead(run: DagsterRun) -> bool:
    """Whether the run counts as in progress although its process is known to be gone."""
    holder = holder_of(run)
    return run.status in IN_PROGRESS and holder is not None and holder.state() == "gone"


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs of dead processes as ended, and give back the pool slots they hold, which would block other runs.

    Returns the ids of the runs. A run whose process is of another machine is left to that machine.
    """
    return [run.run_id for run in _in_progress(instance) if end_dead_run(instance, run)]


def end_dead_run(instance: dg.DagsterInstance, run: DagsterRun) -> bool:
    """The same for one run; whether it was dead."""
    if not is_dead(run):
        return False
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, message=_GONE)
    else:
        instance.report_run_failed(run, message=_GONE)
    free_slots(instance, run.run_id)
    return True


def is_ended(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the instance knows that the run has ended. A run that it does not know may be another instance's."""
    run = instance.get_run_by_id(run_id)
    return run is not None and run.is_finished


def nodes_at_once(owner: Owner, node_count: int, local_nodes: int) -> int:
    """How many nodes of a run share this machine: several where the local executor runs it, else this one."""
    local = owner.process is not None and owner.process.state() == "alive"
    return min(node_count, local_nodes) if local else 1


def free_slots(instance: dg.DagsterInstance, run_id: str) -> None:
    storage = instance.event_log_storage
    if storage.supports_global_concurrency_limits:
        storage.free_concurrency_slots_for_run(run_id)


def _in_progress(instance: dg.DagsterInstance) -> Iterator[DagsterRun]:
    runs = instance.get_runs(filters=RunsFilter(statuses=list(IN_PROGRESS)))
    return (run for run in runs if TAG_SERVICE in run.tags or TAG_HOLDER in run.tags)
