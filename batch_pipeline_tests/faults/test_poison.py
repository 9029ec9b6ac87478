"""Whole services over inputs that kill or hang the model's process: they end, and tell of those inputs alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batch_pipeline_tests.faults import deadly, poisons
from batch_pipeline_tests.places import ROW, Place

pytestmark = pytest.mark.executor

REPOSITORY = Path(__file__).parents[2]
KILLED, SEGFAULT = (f"5.1,3.5,1.4,{value}" for value in (deadly.KILLED, deadly.SEGFAULT))

REQUEST = {"type": "object", "properties": {"x": {"type": "number"}}}
COLUMN = {
    "model_algorithm": "any",
    "model_type": "ONNX",
    "apis": [{"url": "/", "request": {"Content-type": "application/json", "data": REQUEST}}],
}


class Services:
    """The command line over a deployment on the local disk, in whose processes the engine is deadly."""

    def __init__(self, root: Path, **env: str) -> None:
        self.place = Place.at(root)
        home, site = root / "dagster", root / "site"
        home.mkdir()
        site.mkdir()
        (home / "dagster.yaml").write_bytes((REPOSITORY / "dagster.yaml").read_bytes())
        self.environment = {
            **os.environ,
            "PYTHONPATH": deadly.python_path(site),
            "DAGSTER_HOME": str(home),
            "BATCH_PIPELINE_ALLOW_LOCAL_FILES": "true",
            "BATCH_PIPELINE_MODELS": f"file://{root}/models/",
            "BATCH_PIPELINE_CACHE": str(root / "cache"),
            "BATCH_PIPELINE_MIN_PART_BYTES": "1000",
            **env,
        }

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).parent / "batch-pipeline"
        return subprocess.run(
            [program, *arguments, "--wait", "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def deploy(self, **parameters: Any) -> subprocess.CompletedProcess[str]:
        file = self.place.root / "service.json"
        config = self.place.parameters(error_threshold=1, **parameters).to_config()
        file.write_text(json.dumps(config | {"name": "flowers"}))
        return self.command("deploy", str(file))

    def again(self) -> subprocess.CompletedProcess[str]:
        return self.command("services", "run", "flowers")

    def failed(self) -> dict[str, dict[str, str]]:
        """The error of each failed input, by its name."""
        manifests = self.place.output.glob("infer-error-*.manifest")
        lines = [json.loads(line) for manifest in manifests for line in manifest.read_text().splitlines()]
        return {line["source"].rpartition("/")[2]: line["error"] for line in lines}

    def results(self) -> dict[str, int]:
        """The lines of each result, by the name of its input."""
        found = (self.place.output / "infer-result").glob("[!.]*")  # not what a dead process had begun to write
        return {path.name.removesuffix("_result.txt"): len(path.read_text().splitlines()) for path in found}


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services(tmp_path)


def finished(ended: subprocess.CompletedProcess[str]) -> bool:
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return json.loads(ended.stdout)["state"] == "finished"


def test_several_nodes_die_and_the_service_ends_by_itself(services: Services) -> None:
    rows = {f"{number:03}.csv": [ROW] * (1 + number % 4) for number in range(60)}
    rows["010.csv"] = [ROW, KILLED]
    rows["011.csv"] = [SEGFAULT]
    rows["050.csv"] = [ROW, ROW, SEGFAULT, ROW]
    for name, lines in rows.items():
        services.place.put(name, "\n".join(lines) + "\n")
    assert finished(services.deploy(node_count=2))
    poison = {"010.csv", "011.csv", "050.csv"}
    assert services.failed().keys() == poison
    assert {error["code"] for error in services.failed().values()} == {"engine_died"}
    assert services.results() == {name: len(lines) for name, lines in rows.items() if name not in poison}


def test_one_node_takes_its_run_along_and_the_next_run_ends(services: Services) -> None:
    for number in range(40):
        services.place.put(f"{number:03}.csv")
    services.place.put("005.csv", f"{ROW}\n{SEGFAULT}\n")
    services.place.put("030.csv", f"{KILLED}\n")
    assert services.deploy().returncode == -signal.SIGSEGV
    assert finished(services.again())
    assert services.failed().keys() == {"005.csv", "030.csv"}
    assert len(services.results()) == 38
    assert "died twice" in services.failed()["005.csv"]["message"]
    # What failed is tried again, as ever, and takes nobody along.
    assert finished(services.again())
    assert services.failed().keys() == {"005.csv", "030.csv"}


def test_a_divided_csv_fails_as_a_whole_for_one_deadly_row(services: Services) -> None:
    lines = [ROW] * 1000
    lines[700] = SEGFAULT
    services.place.put("big.csv", "\n".join(lines) + "\n")
    services.place.put("good.csv", f"{ROW}\n" * 900)
    assert finished(services.deploy(node_count=2))
    assert {name: error["code"] for name, error in services.failed().items()} == {"big.csv": "engine_died"}
    assert services.results() == {"good.csv": 900}


def test_a_row_that_hangs_fails_alone(tmp_path: Path) -> None:
    services = Services(tmp_path, BATCH_PIPELINE_BATCH_SECONDS="3")
    services.place.push("endless:1.0.0", COLUMN, str(poisons.endless(tmp_path / "endless.onnx")))
    services.place.put("a.csv", f"1\n{poisons.ENDLESS}\n3\n")
    assert finished(services.deploy(model="endless"))
    assert services.results() == {"a.csv": 3}
    lines = services.place.lines("infer-result/a.csv_result.txt")
    assert (lines[0], lines[1]["error"]["code"], lines[2]) == ({"y": 2.0}, "timed_out", {"y": 6.0})


def test_an_operator_that_nothing_ends_costs_its_file(tmp_path: Path) -> None:
    services = Services(tmp_path, BATCH_PIPELINE_BATCH_SECONDS="3")
    services.place.push("stuck:1.0.0", COLUMN, str(poisons.stuck(tmp_path / "stuck.onnx")))
    for name, value in (("a", 1.0), ("b", poisons.STUCK), ("c", 3.0)):
        services.place.put(f"{name}.csv", f"{value}\n")
    ended = services.deploy(model="stuck")
    assert "does not come back" in ended.stderr
    assert finished(services.again())
    assert {name: error["code"] for name, error in services.failed().items()} == {"b.csv": "timed_out"}
    assert services.results() == {"a.csv": 1, "c.csv": 1}
