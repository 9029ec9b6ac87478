"""`batch-pipeline deploy --wait` is killed: with all its processes, or alone, so that its nodes are left behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from batch_pipeline.layout import OutputLayout
from batch_pipeline_tests.demo.processes import left_behind, marked, marked_environment
from batch_pipeline_tests.faults import killer, outputs
from batch_pipeline_tests.faults.figures import Figures
from batch_pipeline_tests.faults.works import WORKS, Verdict, Works
from batch_pipeline_tests.integration.command import Command

TRIALS = int(os.environ.get("FAULT_TRIALS", "8"))
MOST_DEATHS = 2
STARTING, WORKING = 3.0, 4.0
"""Seconds that a command takes, about, until it holds the output folder, and from then on."""
SEVERAL = [work for work, changes in WORKS.items() if "node_count" in changes]

pytestmark = pytest.mark.executor


@dataclass
class Deployed:
    """A command at work, leader of a group with every process that it starts."""

    process: subprocess.Popen[str]
    mark: str

    def until_it_holds(self, works: Works, name: str) -> None:
        """Ends, too, where the command has."""
        while self.process.poll() is None and not works.storage.exists(OutputLayout(works.output(name)).lock):
            time.sleep(0.05)

    def kill(self) -> bool:
        """With its group; whether that met it alive."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.ended() == -signal.SIGKILL

    def kill_alone(self) -> bool:
        self.process.kill()
        return self.ended() == -signal.SIGKILL

    def ended(self) -> int:
        # Not what it said: orphans hold the other end.
        return self.process.wait(timeout=240)

    def others(self) -> list[int]:
        """What it has started."""
        return [pid for pid in marked(self.mark) if pid != self.process.pid]


def deploy(command: Command, parameters: str) -> Deployed:
    environment, mark = marked_environment()
    with (command.root / "said").open("ab") as log:
        options = {"env": command.environment | environment, "stdout": log, "stderr": log, "start_new_session": True}
        process = command.start("deploy", parameters, "--wait", **options)
    return Deployed(process, mark)


@pytest.fixture
def command(works: Works, tmp_path: Path) -> Command:
    return Command(tmp_path, works.bucket)


@pytest.fixture
def elsewhere(works: Works, tmp_path: Path) -> Command:
    """Another installation of the same deployment, which shares nothing but the bucket."""
    root = tmp_path / "elsewhere"
    root.mkdir()
    return Command(root, works.bucket)


def test_a_command_that_is_killed_with_its_group(works, command, figures):
    trials = max(2, TRIALS // 5)
    names = list(WORKS)[-trials:]
    alone = killer.undisturbed(works, names)
    of = figures["the command with all its processes"] = Figures()
    for seed in range(trials):
        chance, work, name = random.Random(1000 + seed), names[seed % len(names)], f"group-{seed}"
        parameters, deaths = command.parameters(**works.body(work, name)), 0
        for _ in range(chance.randint(1, MOST_DEATHS)):
            deployed = deploy(command, parameters)
            if chance.random() < 0.8:
                deployed.until_it_holds(works, name)
                time.sleep(chance.uniform(0, WORKING))
            else:
                time.sleep(chance.uniform(0, STARTING))
            deaths += deployed.kill()
            assert left_behind(deployed.mark) == [], seed
            assert outputs.named_but_absent(works.storage, works.output(name)) == [], seed
        # Where it was killed before there was a service, there is nothing to run again but the command itself.
        known = chance.random() < 0.5 and f'"{name}"' in command.run("services", "list", "--json")[0]
        command.run(*(["services", "run", name] if known else ["deploy", parameters]), "--wait")
        verdict = works.judge(name, alone[work])
        assert verdict == Verdict(verdict.inputs), seed
        of.count(work, deaths, verdict.inputs)
    assert of.deaths >= trials // 2


def test_a_command_that_is_killed_alone_leaves_no_nodes_at_work(works, command, elsewhere, figures):
    """Every other time its nodes are stopped at that moment, sleep through what another installation does, and wake."""
    trials = max(1, TRIALS // 10)
    names = SEVERAL[:trials]
    alone = killer.undisturbed(works, names)
    of = figures["the command alone, its nodes not"] = Figures()
    for seed in range(trials):
        chance, work, name = random.Random(2000 + seed), names[seed % len(names)], f"alone-killed-{seed}"
        sleep = (seed // len(names)) % 2 == 0
        parameters = command.parameters(**works.body(work, name))
        deployed = deploy(command, parameters)
        deployed.until_it_holds(works, name)
        # The first at once: it has taken the folder, and is about to write down what the service is made from.
        time.sleep(chance.uniform(0, WORKING) if seed else 0)
        asleep = deployed.others() if sleep else []
        for pid in asleep:
            os.kill(pid, signal.SIGSTOP)
        deaths = int(deployed.kill_alone())
        assert outputs.named_but_absent(works.storage, works.output(name)) == [], seed
        where = elsewhere if sleep else command
        where.run("deploy", elsewhere.parameters(**works.body(work, name)), "--wait")
        before = where.written(f"{name}/")
        for pid in asleep:
            os.kill(pid, signal.SIGCONT)
        assert left_behind(deployed.mark) == [], seed
        assert where.written(f"{name}/") == before, seed
        verdict = works.judge(name, alone[work])
        assert verdict == Verdict(verdict.inputs), seed
        of.count(work, deaths, verdict.inputs)
    assert of.deaths > trials // 2
