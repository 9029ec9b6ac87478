"""Dagster's executor of several processes, which here starts a node again whose process died."""

from typing import Any

import dagster as dg
from dagster._core.execution.context.system import IStepContext
from dagster._core.execution.plan.objects import StepRetryData
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.executor.child_process_executor import ChildProcessCrashException
from dagster._core.executor.multiprocess import MultiprocessExecutor
from dagster_shared.error import SerializableErrorInfo

from batch_pipeline.orchestration.names import INFER

RESTARTS = 3
"""The first is enough for a node to find what its process dies at, and to leave it out."""


class NodeProcessesExecutor(MultiprocessExecutor):
    """A retry policy of the op would do this with any executor, but it also starts a service again that was stopped."""

    def log_failure_or_retry_event_after_error(
        self, step_context: IStepContext, err_info: SerializableErrorInfo, known_state: KnownExecutionState
    ) -> dg.DagsterEvent:
        step = step_context.step
        died = err_info.cls_name == ChildProcessCrashException.__name__ and step.node_handle.name.startswith(INFER)
        if died and known_state.get_retry_state().get_attempt_count(step.key) < RESTARTS:
            again: Any = StepRetryData(error=err_info, seconds_to_wait=1)  # type: ignore[no-untyped-call]
            return dg.DagsterEvent.step_retry_event(step_context, again)
        return super().log_failure_or_retry_event_after_error(step_context, err_info, known_state)
