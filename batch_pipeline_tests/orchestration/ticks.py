"""What stands in for the daemon in the tests of sensors: it evaluates a real sensor, and makes what a tick asks for."""

from __future__ import annotations

import os
from dataclasses import dataclass

import dagster as dg
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.storage.tags import RUN_KEY_TAG
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from batch_pipeline.definitions import build_definitions
from batch_pipeline.node_specs import load_node_specs
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.factory import declare
from batch_pipeline.orchestration.names import LOCATION
from batch_pipeline.orchestration.resources import DEPLOYMENT, DeploymentResource


def definitions_of(declaration: Declaration) -> dg.Definitions:
    return dg.Definitions.merge(build_definitions(), declare(declaration, load_node_specs(None), os.environ))


@dataclass
class Tick:
    """What one tick said and asked for."""

    runs: list[dg.RunRequest]
    message: str
    cursor: str | None

    @property
    def names(self) -> list[str]:
        return [str(run.partition_key) for run in self.runs]

    @property
    def run_keys(self) -> list[str | None]:
        return [run.run_key for run in self.runs]

    def config(self, declaration: str = "reviews") -> dict[str, object]:
        """The parameters of its only run."""
        (run,) = self.runs
        config: dict[str, object] = run.run_config["ops"][declaration]["config"]
        return config


class Sensor:
    """A sensor of one declaration, with its cursor, on a real instance."""

    def __init__(self, instance: dg.DagsterInstance, declaration: Declaration, kind: str = "manifests") -> None:
        self.instance = instance
        self.definitions = definitions_of(declaration)
        self.job = self.definitions.resolve_job_def(declaration.job)
        self._sensor = self.definitions.resolve_sensor_def(f"{declaration.name}_{kind}")
        self.cursor: str | None = None

    def evaluate(self) -> Tick:
        """A tick that is killed before Dagster has made anything of it."""
        return self._evaluated()[0]

    def tick(self, *, launch: int | None = None, status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS) -> Tick:
        """As the daemon does: makes the partitions, then `launch` of the runs (all), and keeps the cursor."""
        tick, data = self._evaluated()
        for request in data.dynamic_partitions_requests or ():
            self.instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
        for run in tick.runs[:launch]:
            self.make(run, status)
        if launch is None or launch >= len(tick.runs):
            self.cursor = tick.cursor
        return tick

    def make(self, run: dg.RunRequest, status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS) -> dg.DagsterRun:
        tags = {**run.tags, RUN_KEY_TAG: str(run.run_key)}
        return self.instance.create_run_for_job(self.job, run_config=run.run_config, tags=tags, status=status)

    def _evaluated(self) -> tuple[Tick, dg.SensorExecutionData]:
        resources = {DEPLOYMENT: DeploymentResource()}
        context = dg.SensorEvaluationContext(
            instance_ref=self.instance.get_ref(),
            last_tick_completion_time=None,
            last_run_key=None,
            cursor=self.cursor,
            repository_name="__repository__",
            definitions=self.definitions,
            resources=resources,
            code_location_origin=InProcessCodeLocationOrigin(LoadableTargetOrigin(), location_name=LOCATION),
        )
        with context:
            data = self._sensor.evaluate_tick(context)
        return Tick(list(data.run_requests or ()), data.skip_message or "", data.cursor), data
