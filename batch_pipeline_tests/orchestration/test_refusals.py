"""A bad value in each row of the parameters' table, given to the command line: the message, the status, no trace."""

from __future__ import annotations

import json

import pytest

from batch_pipeline.cli import run
from batch_pipeline.orchestration.names import SERVICE

NUMBER = {"type": "number"}
BAD = [
    ("name", "a b", "name: must be 1 to 64 letters, digits, _, - or Chinese characters, not 'a b'"),
    ("name", "a" * 65, "name: must be 1 to 64 letters, digits, _, - or Chinese characters, not 'aaa"),
    ("description", "x" * 101, "description: must have at most 100 characters, and has 101"),
    ("description", "a=b", "description: must have none of !<>=&\"', and has ="),
    ("model", "rose", "model: there is no model 'rose'; the registry file://{root}/models/ has iris"),
    ("model", "iris:2", "model: iris has no version 2; it has 1.0.0"),
    ("model", "iris:1.0.0-broken", "model: "),
    ("input_path", "file://{root}/in", "input_path: must be a folder (s3://bucket/prefix/) or one file ending .manif"),
    ("input_path", "in/", "input_path: location 'in/' is no location"),
    ("input_path", "file://{root}/none/", "input_path file://{root}/none/ holds no object"),
    ("input_path", "file://{root}/none.manifest", "input_path file://{root}/none.manifest: there is no such manifest"),
    ("input_path", "file://{root}/empty.manifest", "input_path file://{root}/empty.manifest lists no input"),
    ("request_path", "/other", "request_path: the model has no API at '/other'; it has /"),
    (
        "mapping",
        {"type": "object", "properties": {"petal": {**NUMBER, "index": 0}}},
        "mapping rule at petal: the model's request has input_1, input_2, input_3, input_4 there",
    ),
    (
        "mapping",
        {"type": "object", "properties": {"input_1": {**NUMBER, "index": 0}}},
        "mapping: the model needs input_2",
    ),
    (
        "output_path",
        "file://{root}/foreign/",
        "output_path file://{root}/foreign/ is not empty: it holds file://{root}",
    ),
    ("output_path", "file://{root}/in/out/", "output_path: must not lie inside the input folder, file://{root}/in/"),
    ("output_path", "file://{root}/", "output_path: must not hold the input folder, file://{root}/in/"),
    ("node_spec", "huge", "node_spec: 'huge' does not exist; node specs: cpu-2u8g, gpu-2u8g-p4, auto-cpu, auto-gpu"),
    ("node_spec", "gpu-2u8g-p4", "node_spec: 'gpu-2u8g-p4' must be granted by the operator"),
    ("node_spec", "auto-cpu", "node_spec: 'auto-cpu' is only for models of automatic learning; may be used: cpu-2u8g"),
    ("node_count", 0, "node_count: must be an integer of 1 or more, not 0"),
    ("node_count", 257, "node_count: must be at most 256, the limit of this deployment, not 257"),
    ("environment", {"PATH": "x"}, "environment.PATH: would change how the process itself runs, and is refused"),
    ("environment", {"LD_PRELOAD": "x"}, "environment.LD_PRELOAD: would change how the process itself runs"),
    ("environment", {"PYTHONPATH": "x"}, "environment.PYTHONPATH: would change how the process itself runs"),
    ("environment", {"DAGSTER_HOME": "x"}, "environment.DAGSTER_HOME: would change how the process itself runs"),
    ("environment", {"AWS_PROFILE": "x"}, "environment.AWS_PROFILE: would change how the process itself runs"),
    ("environment", {"A": {"env": "NOT_SET"}}, "environment.A: the deployment has no variable NOT_SET"),
    ("error_threshold", 1.1, "error_threshold: must be a number from 0 to 1, not 1.1"),
    ("if_changed", "ask", "if_changed: must be refuse or overwrite, not 'ask'"),
    ("csv", {"missing": "skip"}, "csv.missing: must be error or nan, not 'skip'"),
    ("join_input", "yes", "join_input: must be true or false, not 'yes'"),
    ("nodecount", 2, "nodecount: is not a parameter; did you mean node_count?"),
]


@pytest.mark.parametrize("how", [["--wait"], []], ids=["wait", "queue"])
def test_a_bad_value_is_refused_and_leaves_no_trace(instance, place, capsys, how):
    place.push("iris:1.0.0-broken")
    (place.root / "models/iris/1.0.0-broken/model.onnx").write_bytes(b"no model")
    place.manifest(name="empty.manifest")
    (place.root / "foreign").mkdir()
    (place.root / "foreign/notes.txt").write_text("mine")
    base = place.parameters().to_config()
    file = place.root / "service.json"
    data = [path for name in ("models", "in", "foreign") for path in (place.root / name).rglob("*")]
    for key, value, message in BAD:
        file.write_text(json.dumps({**base, key: value}).replace("{root}", str(place.root)))
        assert run(["deploy", str(file), *how, "--json"]) == 2, (key, value)
        out, err = capsys.readouterr()
        (line,) = err.splitlines()
        assert line.startswith(f"error: {message.replace('{root}', str(place.root))}"), (key, value)
        assert out == ""
    assert not place.output.exists()
    assert data == [path for name in ("models", "in", "foreign") for path in (place.root / name).rglob("*")]
    assert not (place.root / "none").exists()
    assert not instance.get_dynamic_partitions(SERVICE)
    assert not instance.get_runs()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"BATCH_PIPELINE_MODELS": ""}, "error: BATCH_PIPELINE_MODELS is not set: "),
        ({"BATCH_PIPELINE_MODELS": "s3://models/"}, "error: bucket models: the object store can't be reached"),
        ({"BATCH_PIPELINE_MODELS": "models"}, "error: BATCH_PIPELINE_MODELS: "),
        ({"BATCH_PIPELINE_MAX_NODES": "many"}, "error: BATCH_PIPELINE_MAX_NODES: must be an integer"),
    ],
)
def test_a_deployment_that_is_not_set_up_is_one_line_and_2(
    instance, place, capsys, monkeypatch, tmp_path, variables, message
):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "service.json"
    file.write_text(json.dumps(place.parameters().to_config()))
    for command in (["deploy", str(file), "--wait"], ["preview", str(file)], ["models", "list"]):
        assert run(command) == 2
        out, err = capsys.readouterr()
        (line,) = err.splitlines()
        assert (out, line.startswith(message)) == ("", True), line
    assert not instance.get_runs()
