"""The executor of one machine: a stand-alone service in process, several nodes as processes of a forkserver."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType

import dagster as dg
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.execution.step_dependency_config import StepDependencyConfig
from dagster._core.executor.base import Executor
from dagster._core.executor.init import InitExecutorContext
from dagster._core.storage.tags import GRPC_INFO_TAG

from batch_pipeline.errors import Refused
from batch_pipeline.orchestration.effective_parameters import effective_config, first_op_config
from batch_pipeline.orchestration.fork_server import PRELOAD, current_fork_server
from batch_pipeline.orchestration.holders import end_dead_runs, holder_tag
from batch_pipeline.orchestration.holding import holding
from batch_pipeline.orchestration.names import PARTITION
from batch_pipeline.orchestration.node_processes import NodeProcessesExecutor
from batch_pipeline.orchestration.open_databases import databases_open
from batch_pipeline.orchestration.stand_alone import StandAloneExecutor
from batch_pipeline.ownership import ProcessIdentity
from batch_pipeline.settings import Settings


class LocalExecutor(Executor):
    """Runs a service on this machine, and keeps its lock on the output folder from the first step to the last."""

    def __init__(self, max_concurrent: int) -> None:
        self._max_concurrent = max_concurrent

    @property
    def retries(self) -> RetryMode:
        return RetryMode.ENABLED

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        return StepDependencyConfig.default()

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """The events of the run, step by step."""
        instance = plan_context.instance
        with ExitStack() as stack:
            stack.enter_context(databases_open(instance, plan_context.run_id))
            end_dead_runs(instance)
            instance.add_run_tags(plan_context.run_id, holder_tag(ProcessIdentity.current(), plan_context.run_id))
            stack.enter_context(_without_main())
            inner: Executor = StandAloneExecutor(retries=self.retries)
            if _node_count(plan_context) > 1:
                stack.enter_context(current_fork_server())
                inner = self._several_nodes()
            stack.enter_context(_stopping(instance, plan_context.run_id))
            for event in inner.execute(plan_context, execution_plan):
                yield event
                if event.is_step_success and event.node_name == "ingest_manifest":
                    # Only now is the folder ours; from here on this process keeps the lock, whatever the steps do.
                    stack.enter_context(holding(instance, plan_context.dagster_run))

    def _several_nodes(self) -> Executor:
        return NodeProcessesExecutor(
            retries=self.retries,
            max_concurrent=self._max_concurrent,
            start_method="forkserver",
            explicit_forkserver_preload=PRELOAD,
        )


def _node_count(plan_context: PlanOrchestrationContext) -> int:
    """Processes are only for several nodes. What is wrong with the parameters, the first step will say."""
    run = plan_context.dagster_run
    op_config = first_op_config(plan_context.job.get_definition(), plan_context.run_config)
    if op_config is None:
        return 1
    try:
        config = effective_config(plan_context.instance, op_config, run.tags.get(PARTITION, ""))
    except Refused:
        return 1
    return int(config.get("node_count", 1))


@contextmanager
def _stopping(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """A signal to the command line stops the service. Dagster would call it failed, unless the run is CANCELING."""
    try:
        yield
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        run = instance.get_run_by_id(run_id)
        # A code server that goes down interrupts its runs too: nobody asked for that, and they have failed.
        if run is not None and GRPC_INFO_TAG not in run.tags and run.status == dg.DagsterRunStatus.STARTED:
            instance.report_run_canceling(run)
        raise


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the script that called us: each step's process would execute it again, unless its author guarded it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@dg.executor(name="local")
def local_executor(context: InitExecutorContext) -> LocalExecutor:  # noqa: ARG001  dagster calls it so
    """One machine: a stand-alone service in process, several nodes as that many processes."""
    return LocalExecutor(Settings.from_environment().local_nodes)
