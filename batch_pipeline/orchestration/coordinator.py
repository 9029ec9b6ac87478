"""Dagster's run queue, which here also says whose service a run is before it starts, however it was launched."""

from __future__ import annotations

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._core.storage.dagster_run import DagsterRun

from batch_pipeline.orchestration.names import PARTITION, TAG_SERVICE
from batch_pipeline.orchestration.runs import declaration_of, declaration_of_job
from batch_pipeline.orchestration.tags import identity_tags


class ServiceRunCoordinator(QueuedRunCoordinator[dg.DagsterInstance]):
    """Tags each run of a service with its name, by which the queue has one of them at a time, and the list finds them.

    The page of an asset, an automation condition or a job of another project give a run no such tags.
    """

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Put the run on the queue."""
        run = context.dagster_run
        tags = _tags_of(self._instance, run)
        if tags:
            self._instance.add_run_tags(run.run_id, tags)
        return super().submit_run(context)


def _tags_of(instance: dg.DagsterInstance, run: DagsterRun) -> dict[str, str]:
    """What the run says of its service without having said it in tags."""
    if TAG_SERVICE in run.tags or PARTITION not in run.tags:
        return {}
    declaration = declaration_of(run) or declaration_of_job(instance, run)
    return identity_tags(declaration, run.tags[PARTITION]) if declaration is not None else {}
