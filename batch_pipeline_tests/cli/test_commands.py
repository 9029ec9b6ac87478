"""The whole command line over local files: a real model, a real Dagster instance, services run in this process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from batch_pipeline.cli import run

EXPORTED = Path(__file__).parents[1] / "exported"
CONFIG = {
    "model_algorithm": "logistic",
    "model_type": "ONNX",
    "apis": [
        {
            "request": {
                "Content-type": "application/json",
                "data": {"type": "object", "properties": {f"x{n}": {"type": "number"} for n in range(4)}},
            },
        }
    ],
}


class Cli:
    """Runs a command; `out` is what it printed, `json` that read as JSON."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        status = run(arguments)
        self.out, self.err = self._capsys.readouterr()
        return status

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment on local files, with a package to push, two CSVs and a parameter file."""
    for name in ("models", "package", "in", "home"):
        (tmp_path / name).mkdir()
    shutil.copy(EXPORTED / "logistic.onnx", tmp_path / "package/model.onnx")
    (tmp_path / "package/config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "in/1.csv").write_text("5.1,3.5,1.4,0.2\n6.9,3.2,5.7,x\n")
    (tmp_path / "in/2.csv").write_text("6.9,3.2,5.7,2.3\n")
    (tmp_path / "service.yaml").write_text(
        f"model: iris\ninput_path: file://{tmp_path}/in/\noutput_path: file://{tmp_path}/out/\nerror_threshold: 0.5\n"
        "environment: {TOKEN: hunter2}\n"
    )
    monkeypatch.setenv("BATCH_PIPELINE_MODELS", f"file://{tmp_path}/models/")
    monkeypatch.setenv("BATCH_PIPELINE_ALLOW_LOCAL_FILES", "true")
    monkeypatch.setenv("BATCH_PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], folder: Path) -> Cli:
    cli = Cli(capsys)
    assert cli("models", "push", f"{folder}/package", "iris:1.0") == 0
    return cli


def test_models_are_pushed_listed_and_shown(cli: Cli, folder: Path) -> None:
    assert cli("models", "list") == 0
    assert cli.out.splitlines()[1].split("\t")[:4] == ["iris", "1.0", "normal", "logistic"]
    assert cli("models", "show", "iris", "--json") == 0
    assert (cli.json["model"], cli.json["status"], cli.json["apis"][0]["kind"]) == ("iris:1.0", "normal", "json")
    assert cli("models", "push", f"{folder}/package", "iris:1.0") == 2
    assert "exists" in cli.err
    assert cli("models", "push", f"{folder}/package", "iris:1.0", "--force", "--json") == 0
    assert cli.json["status"] == "normal"
    assert cli("models", "show", "nothing") == 2


def test_a_preview_writes_nothing(cli: Cli, folder: Path) -> None:
    assert cli("preview", f"{folder}/service.yaml", "--rows", "1") == 0
    assert 'request  {"x0": 5.1, "x1": 3.5, "x2": 1.4, "x3": 0.2}' in cli.out
    assert '"label": "setosa"' in cli.out
    assert not (folder / "out").exists()
    assert cli("preview", f"{folder}/service.yaml", "--json", "--set", "csv.header=true") == 0
    assert len(cli.json["inputs"][0]["pairs"]) == 1


def test_wrong_parameters_are_one_line_each(cli: Cli, folder: Path) -> None:
    file = f"{folder}/service.yaml"
    assert cli("deploy", file, "--wait", "--name", "a b", "--set", "nodecount=2", "csv.missing=x") == 2
    assert [line.split(":")[1].strip() for line in cli.err.splitlines()] == ["name", "csv.missing", "nodecount"]
    assert cli("deploy", file, "--wait", "--set", "model=nothing") == 2
    assert cli.err.startswith("error: model: ")
    assert cli("deploy", file, "--set", "node_count=2", "stray") == 2
    assert "'stray'" in cli.err
    assert cli("deploy", f"{folder}/nothing.yaml") == 2
    assert cli("services", "list", "--json") == 0
    assert cli.json == []


def test_the_life_of_a_service(cli: Cli, folder: Path) -> None:
    file = f"{folder}/service.yaml"
    assert cli("deploy", file, "--wait", "--name", "服务-1", "--json") == 0
    assert cli.json["state"] == "finished"
    assert "finished" in cli.err
    assert cli("services", "list") == 0
    assert cli.out.splitlines()[1].split("\t")[:5] == ["服务-1", "finished", "iris", "1", "2/2"]
    assert cli("services", "list", "--search", "nothing", "--json") == 0
    assert cli.json == []

    assert cli("services", "describe", "服务-1", "中文 text") == 0
    assert cli("services", "describe", "服务-1", "<b>") == 2
    assert cli("services", "show", "服务-1", "--json") == 0
    assert (cli.json["description"], cli.json["error"]) == ("中文 text", None)
    assert cli.json["parameters"]["error_threshold"] == 0.5
    assert cli("services", "show", "服务-1") == 0
    assert "hunter2" not in cli.out
    assert f"file://{folder}/out/" in cli.out

    assert cli("results", "服务-1", "--json") == 0
    assert [(row["row"], row["label"]) for row in cli.json] == [(0, "setosa"), (1, None), (0, "virginica")]
    assert cli.json[1]["error"]
    assert cli("results", "服务-1", "--head", "1", "--to", f"{folder}/x.parquet") == 0
    assert len(pd.read_parquet(folder / "x.parquet")) == 1

    assert cli("services", "run", "服务-1", "--wait") == 0
    assert cli("services", "stop", "服务-1") == 2
    assert cli("deploy", file, "--wait", "--name", "服务-1", "--set", "join_input=true") == 2
    assert "join_input" in cli.err
    assert cli("deploy", file, "--wait", "--name", "服务-1", "--set", "join_input=true", "--overwrite") == 0
    assert cli("deploy", file, "--wait", "--name", "other") == 2
    assert cli("services", "delete", "服务-1", "--results") == 0
    assert not [path for path in (folder / "out").rglob("*") if path.is_file()]
    assert cli("services", "show", "服务-1") == 2


def test_a_service_that_fails_is_1_and_says_why(cli: Cli, folder: Path) -> None:
    assert cli("deploy", f"{folder}/service.yaml", "--wait", "--name", "x", "--set", "error_threshold=0") == 1
    (line,) = cli.err.splitlines()
    assert line.startswith("error: the service x has failed: ")
    assert len(cli.out.strip()) == 36
    assert cli("services", "show", "x", "--json") == 0
    assert (cli.json["state"], bool(cli.json["error"])) == ("failed", True)
    assert cli("results", "x") == 0
    assert cli.out.splitlines()[0].split("\t")[:2] == ["source", "row"]


def test_without_waiting_it_is_queued_and_its_id_printed(cli: Cli, folder: Path) -> None:
    assert cli("deploy", f"{folder}/service.yaml", "--name", "x") == 0
    assert len(cli.out.strip()) == 36
    assert "deploying" in cli.err
    assert cli("services", "describe", "x", "new") == 2
    assert cli("services", "delete", "x") == 2
    assert cli("results", "x") == 2
    assert cli("services", "stop", "x") == 0
    assert cli("services", "list", "--json") == 0
    assert cli.json[0]["state"] == "stopped"
