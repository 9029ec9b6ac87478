"""The states of a service, as people know them, from the status of its newest run."""

from __future__ import annotations

from typing import Literal

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun

from batch_pipeline.orchestration.holders import is_dead

State = Literal["new", "deploying", "running", "finished", "failed", "stopped"]
"""`new` is a partition that was made by hand, in the UI for example, and never launched."""

_STATES: dict[dg.DagsterRunStatus, State] = {
    dg.DagsterRunStatus.QUEUED: "deploying",
    dg.DagsterRunStatus.NOT_STARTED: "deploying",
    dg.DagsterRunStatus.MANAGED: "deploying",
    dg.DagsterRunStatus.STARTING: "deploying",
    dg.DagsterRunStatus.STARTED: "running",
    dg.DagsterRunStatus.SUSPENDED: "running",
    dg.DagsterRunStatus.CANCELING: "running",
    dg.DagsterRunStatus.SUCCESS: "finished",
    dg.DagsterRunStatus.FAILURE: "failed",
    dg.DagsterRunStatus.CANCELED: "stopped",
}
ACTIVE: frozenset[State] = frozenset({"deploying", "running"})


def state_of(run: DagsterRun | None) -> State:
    """A run whose process is gone has failed, whoever notices first."""
    if run is None:
        return "new"
    return "failed" if is_dead(run) else _STATES[run.status]
