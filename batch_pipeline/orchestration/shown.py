"""One service as people see it: its newest run, put in the words of the list of services."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun, RunRecord

from batch_pipeline.errors import RecordDamaged, Refused, StorageFailed
from batch_pipeline.layout import OutputLayout
from batch_pipeline.locations import parse_folder
from batch_pipeline.orchestration.failures import RunError
from batch_pipeline.orchestration.identity import ServiceId
from batch_pipeline.orchestration.metadata import reported_parameters
from batch_pipeline.orchestration.names import (
    SERVICE,
    TAG_DESCRIPTION,
    TAG_INPUTS,
    TAG_INPUTS_DONE,
    TAG_MODEL,
    TAG_NODES,
    TAG_OUTPUT,
)
from batch_pipeline.orchestration.runs import given_config, recorded_config
from batch_pipeline.orchestration.states import ACTIVE, State, state_of
from batch_pipeline.parameters import MASK
from batch_pipeline.summary import progress_of

if TYPE_CHECKING:
    from batch_pipeline.deployment import Deployment


@dataclass(frozen=True)
class Service:
    """One service as its newest run has it."""

    name: str
    state: State
    run_id: str | None = None
    parameters: dict[str, Any] | None = None
    """As recorded, literal values of `environment` masked; None for a partition that nobody launched.

    In a list, a run that its template gave parameters has only those that its tags name.
    """
    description: str = ""
    inputs: int | None = None
    inputs_done: int | None = None
    """Inputs with an outcome; None before there is a plan."""
    created: datetime | None = None
    started: datetime | None = None
    seconds: float | None = None
    """From its start to its end, or to now."""
    error: RunError | None = None
    """Why it failed; only `show_service` looks it up."""

    @property
    def model(self) -> str:
        return str((self.parameters or {}).get("model", ""))

    @property
    def nodes(self) -> int | None:
        """None where the parameters are not known yet."""
        return int((self.parameters or {}).get("node_count", 1)) if self.model else None

    @property
    def output_path(self) -> str:
        return str((self.parameters or {}).get("output_path", ""))


def listed(found: ServiceId, record: RunRecord | None, deployment: Deployment) -> Service:
    """By its run alone; only the progress of one at work is looked up in storage."""
    if record is None:
        return Service(found.name, state_of(None))
    run, state = record.dagster_run, state_of(record.dagster_run)
    config = {**_told_by_tags(run), **given_config(run, found.declaration)}
    counts = _recorded_counts(run, state)
    if counts is None and state == "running":
        counts = _counts_in_storage(found, config, deployment)
    return _service(found, record, state, config, counts)


def looked_up(
    found: ServiceId, record: RunRecord | None, deployment: Deployment, instance: dg.DagsterInstance
) -> Service:
    """With all its parameters, and its counts from storage where its run does not have them."""
    if record is None:
        return Service(found.name, state_of(None))
    run, state = record.dagster_run, state_of(record.dagster_run)
    config = whole_config(instance, found, run)
    counts = _recorded_counts(run, state)
    if counts is None and state != "deploying":
        counts = _counts_in_storage(found, config, deployment)
    return _service(found, record, state, config, counts)


def whole_config(instance: dg.DagsterInstance, found: ServiceId, run: DagsterRun) -> dict[str, Any]:
    """The parameters of a run: as it was launched, or as its first step says where template or record gave them.

    Of one that has not come so far, those that the service was last given.
    """
    given = given_config(run, found.declaration)
    if given and found.declaration == SERVICE:
        return given
    reported = reported_parameters(instance, run.run_id)
    if reported is None:
        return given or recorded_config(instance, found.declaration, found.partition) or {}
    # Of what was given the values of `environment` are known, too.
    own = {"environment": given["environment"]} if "environment" in given else {}
    return {**reported, **own, "description": run.tags.get(TAG_DESCRIPTION, reported.get("description", ""))}


def _service(
    found: ServiceId, record: RunRecord, state: State, config: dict[str, Any], counts: tuple[int, int] | None
) -> Service:
    run = record.dagster_run
    inputs, done = counts or (None, None)
    started = _time(record.start_time)
    ended = _time(record.end_time) if state not in ACTIVE else datetime.now(UTC)
    return Service(
        name=found.name,
        state=state,
        run_id=run.run_id,
        parameters=_masked(config),
        description=run.tags.get(TAG_DESCRIPTION, config.get("description", "")),
        inputs=inputs,
        inputs_done=done,
        created=record.create_timestamp.astimezone(UTC),
        started=started,
        seconds=(ended - started).total_seconds() if started and ended else None,
    )


def _told_by_tags(run: DagsterRun) -> dict[str, Any]:
    tags = {"model": run.tags.get(TAG_MODEL), "output_path": run.tags.get(TAG_OUTPUT)}
    count = run.tags.get(TAG_NODES, "").partition(" ")[0]
    told: dict[str, Any] = {key: value for key, value in tags.items() if value}
    return {**told, "node_count": int(count)} if count.isdecimal() else told


def _recorded_counts(run: DagsterRun, state: State) -> tuple[int, int] | None:
    """Inputs, and inputs done. A re-execution that has not ended still has the tags of its parent."""
    if TAG_INPUTS in run.tags and state not in ACTIVE:
        return int(run.tags[TAG_INPUTS]), int(run.tags[TAG_INPUTS_DONE])
    return None


def _counts_in_storage(found: ServiceId, config: dict[str, Any], deployment: Deployment) -> tuple[int, int] | None:
    try:
        output = parse_folder(config.get("output_path", ""), allow_local=deployment.settings.allow_local_files)
        progress = progress_of(deployment.storage, OutputLayout(output), found.name)
    except (RecordDamaged, Refused, StorageFailed):
        # A list of services is no place for the store's or another deployment's troubles.
        return None
    return (progress.units, progress.done) if progress.units else None


def _masked(config: dict[str, Any]) -> dict[str, Any]:
    environment = {
        name: MASK if isinstance(value, str) else value for name, value in config.get("environment", {}).items()
    }
    return {**config, "environment": environment} if config else {}


def _time(timestamp: float | None) -> datetime | None:
    return datetime.fromtimestamp(timestamp, UTC) if timestamp is not None else None
