"""Somebody else's Dagster project, as `dg` makes it, that declares services beside its own assets."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from batch_pipeline_tests.integration.command import REPOSITORY, Command
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
LENT = Path(sys.executable).parent


@dataclass
class Project:
    """A project of `create-dagster`, with an environment of its own in which a wheel of this package is installed."""

    root: Path
    command: Command

    @property
    def python(self) -> Path:
        return self.root / ".venv/bin/python"

    @property
    def environment(self) -> dict[str, str]:
        return {**self.command.environment, "VIRTUAL_ENV": str(self.root / ".venv"), "NO_COLOR": "1"}

    def run(self, program: str, *arguments: str) -> str:
        """What a program of the project's environment printed, once it went well."""
        own = self.python.parent / program
        return _run(
            self.python, own if own.exists() else LENT / program, *arguments, cwd=self.root, env=self.environment
        )

    def defs(self, name: str) -> Path:
        return self.root / "src/shop/defs" / name

    def declare(self, name: str, text: str) -> None:
        """First as the scaffolder writes it, then as we mean it."""
        self.run("dg", "scaffold", "defs", "batch_pipeline.BatchService", name, "--model", "iris")
        file = self.defs(name) / "defs.yaml"
        assert yaml.safe_load(file.read_text())["attributes"]["service"]["model"] == "iris"
        file.write_text(text.format(bucket=self.command.bucket))

    def install(self) -> None:
        """What `pip install` does, with no index: the other packages are lent by the environment of the tests."""
        _run(sys.executable, "-m", "venv", "--without-pip", ".venv", cwd=self.root)
        _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(self.root / "dist"), cwd=REPOSITORY)
        (wheel,) = (self.root / "dist").glob("*.whl")
        pip = ["-m", "pip", "--python", str(self.python), "install", "--no-deps", "--no-index", str(wheel)]
        _run(sys.executable, *pip, cwd=self.root)
        (packages,) = (self.root / ".venv/lib").glob("python*/site-packages")
        (packages / "paths.pth").write_text(f"{self.root / 'src'}\n{sysconfig.get_path('purelib')}\n")
        found = _run(self.python, "-c", "import batch_pipeline; print(batch_pipeline.__file__)", cwd=self.root)
        assert found.startswith(str(packages)), found


def _run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    ran = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, f"{command}: exit status {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture
def project(moto_bucket: str, tmp_path: Path) -> Project:
    command = Command(tmp_path, moto_bucket)
    command.push_iris()
    for number in range(3):
        command.put(f"in/{number}.csv", f"{ROW}\n" * 2)
    _run(LENT / "create-dagster", "project", "shop", "--no-uv-sync", cwd=tmp_path)
    project = Project(tmp_path / "shop", command)
    project.install()
    return project


def test_a_project_declares_two_services_and_materializes_them(project: Project) -> None:
    command = project.command
    project.declare("ratings", FIXED)
    project.declare("reviews", TRIGGERED)
    project.defs("exported.py").write_text(UPSTREAM)
    _check_that_dg_knows_them(project)

    project.run("dg", "launch", "--assets", "group:shop", "--partition", "ratings")
    assert len(command.lines("ratings/infer-result-0.manifest")) == 3

    name = _deploy_by_trigger(project)
    assert name.startswith("monday-")
    assert len(command.lines(f"reviews/{name}/infer-result-0.manifest")) == 1
    listed = _listed(project)
    assert {service: each["state"] for service, each in listed.items()} == {
        "ratings/ratings": "finished",
        f"reviews/{name}": "finished",
    }

    again = json.loads(project.run("batch-pipeline", "services", "run", f"reviews/{name}", "--wait", "--json"))
    assert again["state"] == "finished"
    assert _listed(project)[f"reviews/{name}"]["id"] != listed[f"reviews/{name}"]["id"]


def _check_that_dg_knows_them(project: Project) -> None:
    listed = json.loads(project.run("dg", "list", "components", "--package", "batch_pipeline", "--json"))
    assert {each["key"] for each in listed["items"]} == {"batch_pipeline.BatchService", "batch_pipeline.ModelRegistry"}
    assert "All definitions loaded successfully" in project.run("dg", "check", "defs")
    assets = {each["asset_key"]: each for each in json.loads(project.run("dg", "list", "defs", "--json"))["assets"]}
    assert {f"{prefix}/{asset}" for prefix in ("shop/ratings", "reviews") for asset in ASSETS} < set(assets)
    assert assets["shop/ratings/input_manifest"]["dependency_keys"] == ["shop/exported_reviews"]
    assert assets["shop/ratings/output_manifest"]["owners"] == [{"team": "shop"}]
    assert assets["reviews/output_manifest"]["source"] == "src/shop/defs/reviews/defs.yaml:1"


def _deploy_by_trigger(project: Project) -> str:
    """Turns the sensor on, drops a manifest, and returns the name of the service that came of it."""
    command = project.command
    home = prepare(Path(command.environment["DAGSTER_HOME"]), **QUICK)
    workspace = project.root / "workspace.yaml"
    module = {"module_name": "shop.definitions", "location_name": "shop", "executable_path": str(project.python)}
    workspace.write_text(yaml.safe_dump({"load_from": [{"python_module": module}]}))
    command.put("incoming/monday.manifest", json.dumps({"source": f"s3://{command.bucket}/in/1.csv"}) + "\n")
    start = ["sensor", "start", "reviews_manifests", "-w", str(workspace)]
    project.run("dagster", *start)
    with (
        daemon(home, workspace=workspace, env=project.environment) as running,
        dg.DagsterInstance.from_config(str(home)) as instance,
    ):
        ours = dg.RunsFilter(job_name="deploy_reviews")
        (run,) = running.until(lambda: [run for run in instance.get_runs(ours) if run.is_finished])
    return str(run.tags["dagster/partition"])


def _listed(project: Project) -> dict[str, dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(project.run("batch-pipeline", "services", "list", "--json"))
    return {each["name"]: each for each in found}
