"""A sensor under the real daemon and run queue, which are killed again and again: one service for each manifest.

`MANIFESTS` in the environment says how many manifests are dropped, 8 unless told. The long form is `MANIFESTS=500`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import InstigatorTick
from dagster._core.scheduler.scheduler import DagsterDaemonScheduler
from dagster._core.storage.tags import BACKFILL_ID_TAG, RUN_KEY_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.controller import create_daemon_grpc_server_registry
from dagster._scheduler.scheduler import launch_scheduled_runs

from batch_pipeline.orchestration.instance import open_instance
from batch_pipeline.orchestration.names import LOCATION, PARTITION, SERVICE
from batch_pipeline_tests.integration import crashing
from batch_pipeline_tests.integration.daemon import Dagster, daemon, prepare
from batch_pipeline_tests.integration.installation import SETTINGS, WORKSPACE
from batch_pipeline_tests.places import CONFIG, Place

pytestmark = pytest.mark.executor

MANIFESTS = int(os.environ.get("MANIFESTS", "8"))
KILLS = max(2, MANIFESTS // 50)

LOCATION_FILE = """
import os

import dagster as dg

from batch_pipeline.definitions import build_definitions
from batch_pipeline.node_specs import load_node_specs
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.factory import declare
from batch_pipeline.triggers.settings import ManifestTrigger, ModelTrigger, ScheduleTrigger

root = os.environ["PLACE"]
output = f"file://{root}/reviews/{{stem}}/{{name}}/"
template = {"model": "iris", "output_path": output, "if_changed": "overwrite"}
triggers = (ManifestTrigger(f"file://{root}/orders/", interval_seconds=1), ModelTrigger(interval_seconds=1))
specs = load_node_specs(None)
reviews = declare(Declaration("reviews", template, triggers=triggers), specs, os.environ)
daily = {"model": "iris", "input_path": f"file://{root}/in/", "output_path": f"file://{root}/nightly/{{time}}/"}
nightly = declare(Declaration("nightly", daily, triggers=(ScheduleTrigger("0 6 * * *"),)), specs, os.environ)
defs = dg.Definitions.merge(build_definitions(), reviews, nightly)
"""


@dataclass
class Watched:
    """An installation whose sensor is on; its daemon is not running."""

    place: Place
    home: Path
    instance: dg.DagsterInstance

    @property
    def workspace(self) -> Path:
        return self.home / "workspace.yaml"

    def drop(self, number: int, place: Path | None = None) -> None:
        """Whole at once, as an object is; into the watched folder unless told where."""
        written = self.place.root / "written"
        written.write_text(json.dumps({"source": self.place.put(f"{number:04}.csv")}) + "\n")
        written.rename(place or self.place.root / "orders" / f"order-{number:04}.manifest")

    def start(self, name: str, kind: str = "sensor") -> None:
        command = [sys.executable, "-m", "dagster", kind, "start", name, "-w", str(self.workspace)]
        subprocess.run(command, check=True, capture_output=True)

    def ticks(self, trigger: str) -> list[InstigatorTick]:
        """The newest one, where there is one."""
        states = [each for each in self.instance.all_instigator_state() if each.instigator_name == trigger]
        return [
            tick
            for state in states
            for tick in self.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        ]

    def services(self) -> list[str]:
        return list(self.instance.get_dynamic_partitions("reviews"))

    def runs(self, *statuses: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
        found = self.instance.get_runs(dg.RunsFilter(job_name="deploy_reviews", statuses=list(statuses)))
        return list(found)

    def finished(self) -> set[str]:
        return {run.tags[PARTITION] for run in self.runs(dg.DagsterRunStatus.SUCCESS)}


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    home = prepare(tmp_path / "home", **SETTINGS)
    (home / "location.py").write_text(LOCATION_FILE)
    (home / "workspace.yaml").write_text(WORKSPACE.format(name=LOCATION))
    variables = {
        "BATCH_PIPELINE_ALLOW_LOCAL_FILES": "true",
        "BATCH_PIPELINE_MODELS": f"file://{tmp_path}/models/",
        "BATCH_PIPELINE_CACHE": str(tmp_path / "cache"),
        "DAGSTER_HOME": str(home),
        "PLACE": str(tmp_path),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    place = Place.at(tmp_path)
    (tmp_path / "orders").mkdir()
    with open_instance(quiet=True) as instance:
        watched = Watched(place, home, instance)
        watched.start("reviews_manifests")
        yield watched


def test_manifests_are_deployed_exactly_once_whenever_the_daemon_is_killed(watched: Watched) -> None:
    """Killed with all that it has started: code server, run workers, nodes; and while a tick makes its runs."""
    moments = random.Random(MANIFESTS)
    dropped = 0
    for kill in range(1, KILLS + 1):
        with daemon(watched.home, workspace=watched.workspace) as running:
            dropped = _drop_until(watched, dropped, MANIFESTS * kill // (KILLS + 1), moments)
            made = len(watched.services())
            running.until(lambda made=made: len(watched.services()) > made)
            time.sleep(moments.uniform(0, 2))
    _drop_until(watched, dropped, MANIFESTS, moments)
    with daemon(watched.home, workspace=watched.workspace) as running:
        running.until(lambda: len(watched.finished()) == MANIFESTS, 300 + 20 * MANIFESTS)
        _until_the_sensor_finds_nothing(watched, running)

    services = watched.services()
    assert sorted(name[:10] for name in services) == [f"order-{number:04}" for number in range(MANIFESTS)]
    # A run that was lost with its process is executed again, as a child of the first.
    first = [run for run in watched.runs() if run.parent_run_id is None]
    assert Counter(run.tags[PARTITION] for run in first) == Counter(services)
    assert max(Counter(run.tags[RUN_KEY_TAG] for run in first).values()) == 1
    succeeded = watched.runs(dg.DagsterRunStatus.SUCCESS)
    assert Counter(run.tags[PARTITION] for run in succeeded) == Counter(services)
    for name in services:
        manifest = watched.place.root / "reviews" / name[:10] / name / "infer-result-0.manifest"
        (line,) = manifest.read_text().splitlines()
        assert json.loads(line)["source"].endswith(f"/{name[6:10]}.csv")


def test_a_tick_killed_at_any_step_makes_each_run_once(watched: Watched) -> None:
    """By the daemon's own code; the runs are left in the queue."""
    prepared = watched.place.root / "prepared"
    prepared.mkdir()
    for step in crashing.STEPS:
        for number in range(2):
            watched.drop(number, prepared / f"{step}-{number}.manifest")
        status, said = _round(watched, step, str(prepared), str(watched.place.root / "orders"))
        assert status == -signal.SIGKILL, said
    for _ in range(2):
        status, said = _round(watched)
        assert status == 0, said
    runs = watched.runs()
    expected = sorted(f"{step}-{number}" for step in crashing.STEPS for number in range(2))
    assert sorted(run.tags[PARTITION].rpartition("-")[0] for run in runs) == expected
    assert {run.status for run in runs} == {dg.DagsterRunStatus.QUEUED}
    assert sorted(watched.services()) == sorted(run.tags[PARTITION] for run in runs)


def test_a_new_model_runs_the_services_again_by_one_backfill(watched: Watched) -> None:
    watched.start("reviews_model")
    for number in range(2):
        watched.drop(number)
    with daemon(watched.home, workspace=watched.workspace) as running:
        running.until(lambda: len(watched.finished()) == 2 and watched.ticks("reviews_model"))
        first = {run.tags[PARTITION]: run for run in watched.runs()}
        watched.place.push("iris:1.1.0", {**CONFIG, "metrics": {"of": "another"}})
        running.until(lambda: len(watched.runs(dg.DagsterRunStatus.SUCCESS)) == 4)
    again = [run for run in watched.runs() if BACKFILL_ID_TAG in run.tags]
    assert {run.tags[PARTITION] for run in again} == set(first)
    assert len({run.tags[BACKFILL_ID_TAG] for run in again}) == 1
    for run in again:
        assert run.run_config == first[run.tags[PARTITION]].run_config
    digest = watched.place.deployment.registry.show("iris:1.1.0").digest
    key = dg.AssetKey(["reviews", "inference_results"])
    newest = watched.instance.fetch_materializations(key, limit=2).records
    assert {record.partition_key for record in newest} == set(first)
    made = [record.asset_materialization for record in newest]
    assert [one.metadata["model_digest"].value for one in made if one is not None] == [digest, digest]


def test_a_scheduled_time_that_failed_is_tried_again_and_of_those_missed_the_newest_is_made(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the daemon's own code, which is told that three days have passed."""
    monkeypatch.setenv("BATCH_PIPELINE_MAX_SERVICES", "1")
    watched.start("nightly_schedule", "schedule")
    watched.instance.add_dynamic_partitions(SERVICE, ["another"])
    now = datetime.now(UTC) + timedelta(days=3)
    with (
        create_daemon_grpc_server_registry(watched.instance) as registry,
        WorkspaceProcessContext(
            watched.instance, WorkspaceFileTarget([str(watched.workspace)]), grpc_server_registry=registry
        ) as context,
    ):
        _scheduled(context, now)
        (failed,) = watched.ticks("nightly_schedule")
        assert failed.is_failure
        assert "BATCH_PIPELINE_MAX_SERVICES" in str(failed.error)
        watched.instance.delete_dynamic_partition(SERVICE, "another")
        _scheduled(context, now)
        _scheduled(context, now)
    (made,) = watched.ticks("nightly_schedule")
    assert (made.tick_id, made.is_success) == (failed.tick_id, True)
    (run,) = watched.instance.get_runs()
    newest = now if now.hour >= 6 else now - timedelta(days=1)
    assert run.tags[PARTITION] == f"nightly-{newest:%Y%m%d}T060000Z"


def _scheduled(context: WorkspaceProcessContext, now: datetime) -> None:
    scheduler = context.instance.scheduler
    assert isinstance(scheduler, DagsterDaemonScheduler)
    logger, retries = logging.getLogger(), scheduler.max_tick_retries
    for _ in launch_scheduled_runs(context, logger, now, {}, max_tick_retries=retries):
        pass


def _round(watched: Watched, *crash: str) -> tuple[int, str]:
    """The exit status, and all that was said by then."""
    log = watched.home / "round.log"
    command = [sys.executable, "-W", "ignore", "-m", crashing.__name__, str(watched.workspace), *crash]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            status = process.wait(timeout=120)
        finally:
            # Its code server outlives it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return status, log.read_text(errors="replace")


def _drop_until(watched: Watched, dropped: int, number: int, moments: random.Random) -> int:
    for each in range(dropped, number):
        watched.drop(each)
        time.sleep(moments.uniform(0, 0.5))
    return number


def _until_the_sensor_finds_nothing(watched: Watched, running: Dagster) -> None:
    """A whole tick after the last run."""
    now = time.time()

    def quiet() -> bool:
        ticks = watched.ticks("reviews_manifests")
        return bool(ticks) and ticks[0].timestamp > now and ticks[0].is_completed and not ticks[0].run_ids

    running.until(quiet)
