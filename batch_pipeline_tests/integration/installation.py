"""A whole installation on the local disk: deployment, instance, daemon and UI, and what a person asks of the UI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_pipeline.orchestration.code_location import create_run
from batch_pipeline.orchestration.config import to_run_config
from batch_pipeline.orchestration.holders import holder_of
from batch_pipeline.orchestration.instance import open_instance
from batch_pipeline.orchestration.launching import Launched, launch
from batch_pipeline.orchestration.names import ASSETS, JOB, LOCATION, PARTITION, SERVICE
from batch_pipeline.orchestration.runs import run_records
from batch_pipeline.ownership import ProcessIdentity
from batch_pipeline_tests.integration.daemon import QUICK, Dagster, daemon, prepare, webserver
from batch_pipeline_tests.places import ROW, Place

REPOSITORY = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}
MANY = 4000
POOL = "node_cpu_2u8g"
SETTINGS: dict[str, Any] = {
    **QUICK,
    "concurrency": {"runs": {"max_concurrent_runs": 2}},
    "run_monitoring": {
        **QUICK["run_monitoring"],
        "start_timeout_seconds": 60,
        "free_slots_after_run_end_seconds": 1,
        "cancellation_thread_poll_interval_seconds": 1,
    },
}

LOCATION_FILE = """
import os

import dagster as dg

from batch_pipeline.definitions import build_definitions
from batch_pipeline.node_specs import load_node_specs
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.factory import declare

root = os.environ["PLACE"]
template = {{
    "model": "iris",
    "input_path": f"file://{{root}}/few/",
    "output_path": f"file://{{root}}/reviews/{{{{name}}}}/",
    "description": "by template",
}}
fixed = {{**template, "output_path": f"file://{{root}}/ratings/"}}
declared = [declare(Declaration(name, each), load_node_specs(None), os.environ) for name, each in {names}]
defs = dg.Definitions.merge(build_definitions(), *declared)
"""
WORKSPACE = "load_from: [{{python_file: {{relative_path: location.py, attribute: defs, location_name: {name}}}}}]\n"


@dataclass
class Installation:
    """`few` is a folder of two inputs, `many` one that keeps several nodes at work for a good while."""

    place: Place
    home: Path
    instance: dg.DagsterInstance
    ui: Dagster
    daemon: Dagster = field(init=False)
    _stack: ExitStack = field(default_factory=ExitStack)

    def start_daemon(self) -> None:
        self.daemon = self._stack.enter_context(daemon(self.home, workspace=self.home / "workspace.yaml"))

    def close(self) -> None:
        self._stack.close()

    def parameters(self, name: str, *, folder: str = "few", **changes: Any) -> dict[str, Any]:
        paths = {"input_path": f"file://{self.place.root}/{folder}/", "output_path": f"{self.output(name).as_uri()}/"}
        return {"name": name, **paths, **changes}

    def deploy(self, name: str, *, folder: str = "few", **changes: Any) -> Launched:
        """On the queue, as the command line does."""
        parameters = self.place.parameters(**self.parameters(name, folder=folder, **changes))
        return launch(parameters, wait=False, instance=self.instance)

    def make_run(self, name: str, **changes: Any) -> dg.DagsterRun:
        """A run that nobody has launched."""
        return create_run(self.instance, self.place.parameters(**self.parameters(name, **changes)))

    def output(self, name: str) -> Path:
        return self.place.root / "outputs" / name

    def run(self, run_id: str) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def runs_of(self, partition: str, declaration: str = SERVICE) -> list[dg.DagsterRun]:
        """Oldest first."""
        return [record.dagster_run for record in run_records(self.instance, declaration, [partition])][::-1]

    def until_ended(self, run_id: str) -> dg.DagsterRun:
        self.daemon.until(lambda: self.run(run_id).is_finished)
        return self.run(run_id)

    def until_at_work(self, run_id: str, nodes: int) -> list[ProcessIdentity]:
        """The processes of a run, that of the run itself first, once this many nodes have results."""
        results = Path(self.run(run_id).tags["batch_pipeline/output"].removeprefix("file://")) / "infer-result"
        run_process = self.daemon.until(lambda: holder_of(self.run(run_id)))
        if nodes == 1:
            self.daemon.until(lambda: results.is_dir() and any(results.iterdir()))
            return [run_process]
        self.daemon.until(lambda: len(self._node_pids(run_id)) == nodes and results.is_dir() and any(results.iterdir()))
        return [run_process, *map(ProcessIdentity.of, self._node_pids(run_id))]

    def _node_pids(self, run_id: str) -> list[int]:
        events = [record.dagster_event for record in self.instance.all_logs(run_id)]
        return [
            event.event_specific_data.metadata["pid"].value
            for event in events
            if event is not None
            and event.event_type_value == "STEP_WORKER_STARTED"
            and "infer_on" in (event.step_key or "")
        ]

    def claimed_slots(self, run_id: str) -> int:
        info = self.instance.event_log_storage.get_concurrency_info(POOL)
        return sum(slot.run_id == run_id for slot in info.claimed_slots)

    def terminate(self, run_id: str) -> str:
        """The UI's button."""
        query = """mutation Terminate($runIds: [String!]!) { terminateRuns(runIds: $runIds) {
          ... on TerminateRunsResult { terminateRunResults { __typename } } } }"""
        (result,) = self.ui.ask(query, runIds=[run_id])["terminateRuns"]["terminateRunResults"]
        return str(result["__typename"])

    def launch_from_launchpad(self, partition: str, job: str = JOB) -> str:
        """With the config and the tags that the Launchpad fills in once the partition is chosen; the run's id."""
        query = """query Partition($repository: RepositorySelector!, $set: String!, $name: String!) {
          partitionSetOrError(repositorySelector: $repository, partitionSetName: $set) { ... on PartitionSet {
            partition(partitionName: $name) { runConfigOrError { ... on PartitionRunConfig { yaml } }
              tagsOrError { ... on PartitionTags { results { key value } } } } } } }"""
        found = self.ui.ask(query, repository=REPOSITORY, set=f"{job}_partition_set", name=partition)
        chosen = found["partitionSetOrError"]["partition"]
        parameters = {
            "selector": {**REPOSITORY, "jobName": job},
            "runConfigData": chosen["runConfigOrError"]["yaml"],
            "executionMetadata": {"tags": chosen["tagsOrError"]["results"]},
        }
        return self._launch(parameters)

    def materialize(self, declaration: str, partition: str, **config: Any) -> str:
        """The button on the page of an asset, which gives a run no tag but its partition; the run's id."""
        assets = [{"path": [declaration, name]} for name in ASSETS]
        parameters = {
            "selector": {**REPOSITORY, "jobName": "__ASSET_JOB", "assetSelection": assets},
            "runConfigData": to_run_config(config, declaration) if config else {},
            "executionMetadata": {"tags": [{"key": PARTITION, "value": partition}]},
        }
        return self._launch(parameters)

    def _launch(self, parameters: dict[str, Any]) -> str:
        mutation = """mutation Launch($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) {
          __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
        launched = self.ui.ask(mutation, parameters=parameters)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def reexecute(self, run_id: str) -> str:
        """The UI's button, all steps; the new run's id."""
        mutation = """mutation Again($parameters: ReexecutionParams!) { launchRunReexecution(
          reexecutionParams: $parameters) { __typename ... on LaunchRunSuccess { run { runId } } } }"""
        parameters = {"parentRunId": run_id, "strategy": "ALL_STEPS"}
        launched = self.ui.ask(mutation, parameters=parameters)["launchRunReexecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def backfill(self, *partitions: str) -> str:
        """The UI's button; the backfill's id."""
        mutation = """mutation Backfill($parameters: LaunchBackfillParams!) {
          launchPartitionBackfill(backfillParams: $parameters) {
            __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
        selector = {"repositorySelector": REPOSITORY, "partitionSetName": f"{JOB}_partition_set"}
        parameters = {"selector": selector, "partitionNames": list(partitions)}
        launched = self.ui.ask(mutation, parameters=parameters)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return str(launched["backfillId"])

    def statuses(self) -> dict[str, str]:
        """As the UI has them: the status of the newest run of each partition."""
        query = "query Runs { runsOrError { ... on Runs { results { status tags { key value } } } } }"
        newest: dict[str, str] = {}
        for run in self.ui.ask(query)["runsOrError"]["results"]:
            tags = {tag["key"]: tag["value"] for tag in run["tags"]}
            newest.setdefault(tags.get(PARTITION, ""), run["status"])
        return newest


@contextmanager
def installation(root: Path) -> Iterator[Installation]:
    """With the daemon and the UI running; nothing is left of them."""
    home = prepare(root / "home", **SETTINGS)
    (home / "location.py").write_text(LOCATION_FILE.format(names="(('reviews', template), ('ratings', fixed))"))
    (home / "workspace.yaml").write_text(WORKSPACE.format(name=LOCATION))
    variables: Mapping[str, str] = {
        "BATCH_PIPELINE_ALLOW_LOCAL_FILES": "true",
        "BATCH_PIPELINE_MODELS": f"file://{root}/models/",
        "BATCH_PIPELINE_CACHE": str(root / "cache"),
        "DAGSTER_HOME": str(home),
        "PLACE": str(root),
    }
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, value in variables.items():
            patch.setenv(name, value)
        place = Place.at(root)
        for folder, count in (("few", 2), ("many", MANY)):
            (root / folder).mkdir()
            for number in range(count):
                (root / folder / f"{number:04}.csv").write_text(f"{ROW}\n")
        instance = stack.enter_context(open_instance(quiet=True))
        ui = stack.enter_context(webserver(home, workspace=home / "workspace.yaml"))
        installed = Installation(place, home, instance, ui)
        stack.callback(installed.close)
        installed.start_daemon()
        yield installed
