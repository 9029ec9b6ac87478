"""Keep a run's lock on its output folder alive from the process that executes it, and give it back at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun

from batch_pipeline.errors import RecordDamaged, StorageFailed
from batch_pipeline.layout import OutputLayout
from batch_pipeline.locations import parse_folder
from batch_pipeline.orchestration.holders import owner_of
from batch_pipeline.orchestration.names import TAG_INPUTS, TAG_INPUTS_DONE, TAG_OUTPUT, TAG_SERVICE
from batch_pipeline.orchestration.resources import DeploymentResource
from batch_pipeline.ownership import Owner
from batch_pipeline.storage import Storage
from batch_pipeline.summary import load_summary, progress_of


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
        try:
            _keep_progress(instance, owner, OutputLayout(output), deployment.storage)
        finally:
            service.release(output, deployment, owner.run_id)


def _keep_progress(instance: dg.DagsterInstance, owner: Owner, layout: OutputLayout, storage: Storage) -> None:
    """Tag a run that ends before it has published with how far it came, so that a list of services needs no storage."""
    try:
        if load_summary(storage, layout) is not None:
            return
        progress = progress_of(storage, layout, owner.service)
    except (RecordDamaged, StorageFailed):
        # The run itself says what is wrong with the store.
        return
    if progress.units:
        instance.add_run_tags(owner.run_id, {TAG_INPUTS: str(progress.units), TAG_INPUTS_DONE: str(progress.done)})
