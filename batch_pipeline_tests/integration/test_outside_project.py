"""Somebody else's Dagster project, as `dg` makes it, that declares services beside its own assets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import yaml

from batch_pipeline_tests.integration.command import Command
from batch_pipeline_tests.integration.daemon import QUICK, daemon, prepare
from batch_pipeline_tests.places import ROW

pytestmark = [pytest.mark.server, pytest.mark.executor]

UPSTREAM = """
import dagster as dg


@dg.asset(key_prefix="shop")
def exported_reviews() -> None:
    '''Somebody else's asset.'''
"""
FIXED = """\
type: batch_pipeline.BatchService

attributes:
  service:
    model: iris
    input_path: s3://{bucket}/in/
    output_path: s3://{bucket}/ratings/
  deps: [shop/exported_reviews]
  key_prefix: shop
  group_name: shop
  owners: ["team:shop"]
"""
TRIGGERED = """\
type: batch_pipeline.BatchService

attributes:
  service:
    model: iris
    output_path: s3://{bucket}/reviews/{{name}}/
  triggers:
    - manifests: {{path: "s3://{bucket}/incoming/", interval_seconds: 1}}
"""
ASSETS = ("input_manifest", "inference_results", "output_manifest")


@dataclass
class Project:
    """A project of `create-dagster`, and `dg` in it."""

    root: Path
    command: Command

    @property
    def environment(self) -> dict[str, str]:
        return {**self.command.environment, "PYTHONPATH": str(self.root / "src"), "NO_COLOR": "1", "COLUMNS": "200"}

    def dg(self, *arguments: str, status: int = 0) -> str:
        """What it printed, once its exit status is the expected one."""
        return _run("dg", *arguments, cwd=self.root, env=self.environment, status=status)

    def defs(self, name: str) -> Path:
        return self.root / "src/shop/defs" / name

    def declare(self, name: str, text: str) -> None:
        """First as the scaffolder writes it, then as we mean it."""
        self.dg("scaffold", "defs", "batch_pipeline.BatchService", name, "--model", "iris")
        file = self.defs(name) / "defs.yaml"
        assert yaml.safe_load(file.read_text())["attributes"]["service"]["model"] == "iris"
        file.write_text(text.format(bucket=self.command.bucket))


def _run(program: str, *arguments: str, cwd: Path, env: dict[str, str], status: int = 0) -> str:
    path = Path(sys.executable).parent / program
    ran = subprocess.run([path, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == status, f"{program} {arguments}: exit status {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture
def project(moto_bucket: str, tmp_path: Path) -> Project:
    command = Command(tmp_path, moto_bucket)
    command.push_iris()
    for number in range(3):
        command.put(f"in/{number}.csv", f"{ROW}\n" * 2)
    _run("create-dagster", "project", "shop", "--no-uv-sync", cwd=tmp_path, env=dict(os.environ))
    return Project(tmp_path / "shop", command)


def test_a_project_declares_two_services_and_materializes_them(project: Project) -> None:
    command = project.command
    project.declare("ratings", FIXED)
    project.declare("reviews", TRIGGERED)
    project.defs("exported.py").write_text(UPSTREAM)
    _check_that_dg_knows_them(project)

    project.dg("launch", "--assets", "group:shop", "--partition", "ratings")
    assert len(command.lines("ratings/infer-result-0.manifest")) == 3
    assert _listed(command) == {"ratings/ratings": "finished"}

    name = _deploy_by_trigger(project)
    assert name.startswith("monday-")
    assert len(command.lines(f"reviews/{name}/infer-result-0.manifest")) == 1
    assert _listed(command) == {"ratings/ratings": "finished", f"reviews/{name}": "finished"}

    before = command.written(f"reviews/{name}/")
    out = _run(
        "batch-pipeline",
        "services",
        "run",
        f"reviews/{name}",
        "--wait",
        "--json",
        cwd=command.root,
        env=project.environment,
    )
    assert json.loads(out)["state"] == "finished"
    assert command.written(f"reviews/{name}/").keys() == before.keys()


def _check_that_dg_knows_them(project: Project) -> None:
    listed = json.loads(project.dg("list", "components", "--package", "batch_pipeline", "--json"))
    assert {each["key"] for each in listed["items"]} == {"batch_pipeline.BatchService", "batch_pipeline.ModelRegistry"}
    assert "All definitions loaded successfully" in project.dg("check", "defs")
    assets = {each["asset_key"]: each for each in json.loads(project.dg("list", "defs", "--json"))["assets"]}
    assert {f"{prefix}/{asset}" for prefix in ("shop/ratings", "reviews") for asset in ASSETS} < set(assets)
    assert assets["shop/ratings/input_manifest"]["dependency_keys"] == ["shop/exported_reviews"]
    assert assets["shop/ratings/output_manifest"]["owners"] == [{"team": "shop"}]
    assert assets["reviews/output_manifest"]["source"] == "src/shop/defs/reviews/defs.yaml:1"


def _deploy_by_trigger(project: Project) -> str:
    """Turns the sensor on, drops a manifest, and returns the name of the service that came of it."""
    command = project.command
    home = prepare(Path(command.environment["DAGSTER_HOME"]), **QUICK)
    workspace = project.root / "workspace.yaml"
    module = {"module_name": "shop.definitions", "location_name": "shop"}
    workspace.write_text(yaml.safe_dump({"load_from": [{"python_module": module}]}))
    command.put("incoming/monday.manifest", json.dumps({"source": f"s3://{command.bucket}/in/1.csv"}) + "\n")
    start = ["sensor", "start", "reviews_manifests", "-w", str(workspace)]
    _run("dagster", *start, cwd=project.root, env=project.environment)
    with (
        daemon(home, project.environment, workspace=workspace) as running,
        dg.DagsterInstance.from_config(str(home)) as instance,
    ):
        ours = dg.RunsFilter(job_name="deploy_reviews")
        (run,) = running.until(lambda: [run for run in instance.get_runs(ours) if run.is_finished])
    return run.tags["dagster/partition"]


def _listed(command: Command) -> dict[str, str]:
    return {each["name"]: each["state"] for each in json.loads(command.run("services", "list", "--json")[0])}
