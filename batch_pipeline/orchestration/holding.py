"""Keep a run's lock on its output folder alive from the process that executes it, and give it back at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun

from batch_pipeline.errors import StorageFailed
from batch_pipeline.layout import OutputLayout
from batch_pipeline.locations import Location, parse_folder
from batch_pipeline.orchestration.holders import owner_of
from batch_pipeline.orchestration.names import TAG_INPUTS, TAG_INPUTS_DONE, TAG_OUTPUT, TAG_SERVICE
from batch_pipeline.orchestration.resources import DeploymentResource
from batch_pipeline.summary import progress_of

if TYPE_CHECKING:
    from batch_pipeline.deployment import Deployment


@contextmanager
def holding(instance: dg.DagsterInstance, run: DagsterRun) -> Iterator[None]:
    """For a run whose first step has taken the output folder."""
    from batch_pipeline import service

    deployment = DeploymentResource().get()
    tagged = instance.get_run_by_id(run.run_id) or run
    output = parse_folder(tagged.tags[TAG_OUTPUT], allow_local=True)
    owner = owner_of(tagged, tagged.tags[TAG_SERVICE])
    try:
        with service.owned(output, deployment, owner):
            yield
    finally:
        _keep_progress(instance, tagged, output, deployment)
        service.release(output, deployment, owner.run_id)


def _keep_progress(instance: dg.DagsterInstance, before: DagsterRun, output: Location, deployment: Deployment) -> None:
    """How far a run came that has ended early, for the list of services: told by its tags, as by one that published."""
    run = instance.get_run_by_id(before.run_id)
    if run is None or run.tags.get(TAG_INPUTS_DONE) != before.tags.get(TAG_INPUTS_DONE):
        return
    try:
        progress = progress_of(deployment.storage, OutputLayout(output), before.tags[TAG_SERVICE])
    except StorageFailed:
        # The run itself says what is wrong with the store.
        return
    if progress.units:
        instance.add_run_tags(run.run_id, {TAG_INPUTS: str(progress.units), TAG_INPUTS_DONE: str(progress.done)})
