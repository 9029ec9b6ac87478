"""Our errors as Dagster failures, with one line for the user; and back again from the events of a run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg

from batch_pipeline.errors import BatchPipelineError, Refused
from batch_pipeline.orchestration.names import TAG_REFUSED

RETRIES = 3
RETRY_SECONDS = 3.0
"""Before the first time that a step is tried again; each further wait is twice as long."""


@dataclass(frozen=True)
class RunError:
    """Why a run failed: one line, a stable code, and whether it was refused before it did anything."""

    message: str
    code: str
    refused: bool = False


@contextmanager
def as_failures(context: dg.OpExecutionContext) -> Iterator[None]:
    """Raise our errors as `dg.Failure`, with their message; a transient one lets the step be tried again, a few times.

    A retry policy of Dagster's would do the same to a step that was interrupted, and so start a stopped service again.
    """
    try:
        yield
    except BatchPipelineError as error:
        tried = context.retry_number
        if error.transient and tried < RETRIES:
            context.log.warning(f"{error.message}: the step is tried again")
            wait = RETRY_SECONDS * 2**tried * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
            raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=wait) from error
        raise failure(error) from error


@contextmanager
def refusals_noted(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Tag the run where it is refused: what it was given is not what its service runs with later."""
    try:
        yield
    except Refused:
        instance.add_run_tags(run_id, {TAG_REFUSED: run_id})
        raise


def failure(error: BatchPipelineError) -> dg.Failure:
    return dg.Failure(
        description=error.message,
        metadata={"code": type(error).__name__, "refused": isinstance(error, Refused)},
        allow_retries=False,
    )


def run_error(instance: dg.DagsterInstance, run_id: str) -> RunError | None:
    """Why the run failed, as far as its events say; None for a run that did not fail."""
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED}
    records = instance.all_logs(run_id, of_type=kinds)
    events = [record.dagster_event for record in records if record.dagster_event is not None]
    ours = (_ours(event) for event in events if event.is_step_failure)
    return next((error for error in ours if error is not None), None) or next(map(_other, events), None)


def _ours(event: dg.DagsterEvent) -> RunError | None:
    data = event.step_failure_data.user_failure_data
    if data is None:
        return None
    code, refused = data.metadata.get("code"), data.metadata.get("refused")
    return RunError(
        message=data.description or event.message or "",
        code=str(code.value) if code is not None else "Failure",
        refused=bool(refused.value) if refused is not None else False,
    )


def _other(event: dg.DagsterEvent) -> RunError:
    """An error that we did not foresee, or a run that was ended from outside."""
    if not event.is_step_failure:
        return RunError(_one_line(event.message or ""), event.event_type_value)
    error = event.step_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return RunError(_one_line(event.message or ""), "StepFailure")
    return RunError(f"step {event.step_key}: {_one_line(error.message)}", error.cls_name or "Error")


def _one_line(text: str) -> str:
    return " ".join(text.split())
