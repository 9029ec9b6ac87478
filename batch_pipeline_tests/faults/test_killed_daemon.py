"""The daemon is killed with everything that it has started, or a run's process alone, and nobody does anything more.

Services come from its queue and from a sensor. It takes minutes: `make test-faults`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dagster as dg
import pytest

from batch_pipeline.layout import OutputLayout
from batch_pipeline.locations import Location
from batch_pipeline.orchestration import services
from batch_pipeline.orchestration.holders import holder_of
from batch_pipeline.orchestration.instance import open_instance
from batch_pipeline.orchestration.launching import launch
from batch_pipeline.orchestration.names import LOCATION
from batch_pipeline.parameters import parse_parameters
from batch_pipeline.settings import Settings
from batch_pipeline_tests.faults import killer, outputs
from batch_pipeline_tests.faults.figures import Figures
from batch_pipeline_tests.faults.works import WORKS, Verdict, Works
from batch_pipeline_tests.integration.daemon import Dagster, daemon, prepare
from batch_pipeline_tests.integration.installation import SETTINGS, WORKSPACE

TRIALS = int(os.environ.get("FAULT_TRIALS", "8"))
WORKING = 10.0
"""Seconds that the services take, about, from when the first is at work."""

LOCATION_FILE = """
import os

import dagster as dg

from batch_pipeline.definitions import build_definitions
from batch_pipeline.node_specs import load_node_specs
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.factory import declare
from batch_pipeline.triggers.settings import ManifestTrigger

bucket = os.environ["BUCKET"]
template = {"model": "prices", "output_path": f"s3://{bucket}/ordered/{{stem}}/", "error_threshold": 0.5}
trigger = ManifestTrigger(f"s3://{bucket}/orders/", interval_seconds=1)
ordered = declare(Declaration("ordered", template, triggers=(trigger,)), load_node_specs(None), os.environ)
defs = dg.Definitions.merge(build_definitions(), ordered)
"""

pytestmark = pytest.mark.executor


@dataclass
class Installed:
    """A deployment with its own Dagster home; its daemon is not running, its sensor is on."""

    works: Works
    home: Path
    instance: dg.DagsterInstance

    def running(self) -> AbstractContextManager[Dagster]:
        return daemon(self.home, workspace=self.home / "workspace.yaml")

    def deploy(self, work: str, name: str) -> None:
        """On the queue, as the command line does."""
        parameters = parse_parameters(self.works.body(work, name), settings=Settings.from_environment())
        launch(parameters, wait=False, instance=self.instance)

    def order(self, name: str) -> None:
        """What the sensor is to find: a manifest of the CSV files."""
        storage, bucket = self.works.storage, self.works.bucket
        found = storage.list(Location(bucket, "csv/"))
        lines = [json.dumps({"source": info.location.uri}) for info in found]
        storage.write(Location(bucket, f"orders/{name}.manifest"), "\n".join(lines).encode())

    def is_at_work(self, names: list[str]) -> bool:
        """Whether one of these services has taken its output folder."""
        return any(self.works.storage.exists(OutputLayout(self.works.output(name)).lock) for name in names)

    def have_finished(self, seed: int, count: int) -> bool:
        """Whether all services of a trial have."""
        mine = (f"daemon-{seed}-", f"ordered/{seed}-")
        states = [one.state for one in services.list_services(self.instance) if one.name.startswith(mine)]
        return states == ["finished"] * count


@pytest.fixture
def installed(works: Works, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    home = prepare(tmp_path / "home", **SETTINGS)
    (home / "location.py").write_text(LOCATION_FILE)
    (home / "workspace.yaml").write_text(WORKSPACE.format(name=LOCATION))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("BUCKET", works.bucket)
    command = ["dagster", "sensor", "start", "ordered_manifests", "-w", str(home / "workspace.yaml")]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
    with open_instance(quiet=True) as instance:
        yield Installed(works, home, instance)


@pytest.mark.skipif("FAULT_TRIALS" not in os.environ, reason="takes minutes: make test-faults")
def test_a_daemon_that_is_killed_with_all_it_has_started(
    installed: Installed, works: Works, figures: dict[str, Figures]
) -> None:
    alone = killer.undisturbed(works, WORKS)
    alone["ordered"] = alone["csv"]
    of = figures["the daemon with all its processes, or a run's process"] = Figures()
    for seed in range(max(1, TRIALS // 25)):
        chance = random.Random(3000 + seed)
        names = {work: f"daemon-{seed}-{work}" for work in WORKS} | {"ordered": f"ordered/{seed}"}
        installed.order(str(seed))
        for work in chance.sample(list(WORKS), len(WORKS)):
            installed.deploy(work, names[work])
        for _ in range(chance.randint(1, 2)):
            with installed.running() as running:
                running.until(partial(installed.is_at_work, list(names.values())))
                of.deaths += _kill(running, installed, chance)
            for name in names.values():
                assert outputs.named_but_absent(works.storage, works.output(name)) == [], (seed, name)
        with installed.running() as running:
            running.until(partial(installed.have_finished, seed, len(names)))
        for work, name in names.items():
            verdict = works.judge(name, alone[work])
            assert verdict == Verdict(verdict.inputs), (seed, work)
            of.count(work, 0, verdict.inputs)


def _kill(running: Dagster, installed: Installed, chance: random.Random) -> int:
    """At a random moment; now and then first one run's process alone, with the daemon there to miss it."""
    time.sleep(chance.uniform(0, WORKING))
    holders = [holder_of(run) for run in installed.instance.get_runs() if not run.is_finished]
    alive = [holder.pid for holder in holders if holder is not None and holder.state() == "alive"]
    if alive and chance.random() < 0.5:
        os.kill(chance.choice(alive), signal.SIGKILL)
        time.sleep(chance.uniform(0, WORKING))
        alive.append(0)
    running.kill()
    return len(alive)
