"""What a model answers here is what the tool that exported it answers."""

import csv
import json
from pathlib import Path

import pytest

from batch_pipeline.models.binder import bind
from batch_pipeline.models.mapping import parse
from batch_pipeline.models.schema import leaves, schema_of
from batch_pipeline.models.status import inspect_package
from batch_pipeline.node.job import NodeJob
from batch_pipeline.parameters import CsvOptions
from batch_pipeline_tests.models.packages import EXPORTED, api, config, schema, write
from batch_pipeline_tests.node.jobs import result, run, unit


def answers(folder: Path, model: str, rows: list[list[object]], entry: dict[str, object]) -> list[object]:
    """One answer a row, from a node that runs the exported model."""
    package = write(folder / "package", model, config(entry))
    found = inspect_package(package)
    assert found.reasons == ()
    assert found.config is not None
    assert found.onnx is not None
    binding = bind(found.config, found.config.apis[0], found.onnx, found.labels)
    asked = found.config.apis[0].request_schema
    mapping = parse(None, asked if asked and leaves(asked) else schema_of(binding.leaves), header=False)
    with (folder / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    units = [unit(folder / "rows.csv")]
    run(NodeJob(iter(units), 1, package, "model.onnx", binding, mapping, CsvOptions(), False, 1))
    return [json.loads(line) for line in result(folder / "rows.csv").splitlines()]


@pytest.mark.parametrize("model", ["logistic", "lightgbm", "mlp_regressor", "named_columns"])
def test_scikit_learn(tmp_path, model):
    known = json.loads((EXPORTED / f"{model}.json").read_text())
    for place, answer in enumerate(answers(tmp_path, model, known["rows"], api())):
        for name, values in known["answers"].items():
            found = answer[name]
            expected = [values[place]] if isinstance(found, list) and len(found) == 1 else values[place]
            assert found == (expected if isinstance(expected, str) else pytest.approx(expected, abs=1e-4))


def test_a_zipmap_becomes_an_object(tmp_path):
    known = json.loads((EXPORTED / "logistic_zipmap.json").read_text())
    rows = zip(known["answers"]["label"], known["answers"]["probabilities"], strict=True)
    found = answers(tmp_path, "logistic_zipmap", known["rows"], api())
    for answer, (label, probabilities) in zip(found, rows, strict=True):
        named = dict(zip(["setosa", "versicolor", "virginica"], probabilities, strict=True))
        assert answer == {"output_label": label, "output_probability": pytest.approx(named, abs=1e-4)}


def test_two_inputs_of_pytorch(tmp_path):
    known = json.loads((EXPORTED / "two_inputs.json").read_text())
    inputs, expected = known["inputs"], known["answers"]
    rows = [[price[0], item] for item, price in zip(inputs["item"], inputs["price"], strict=True)]
    scores = {"type": "array", "items": {"type": "number"}}
    response = {"type": "object", "properties": {"best": {"type": "integer"}, "all": scores}}
    entry = api(schema(price="number", item="integer"), response)
    for place, answer in enumerate(answers(tmp_path, "two_inputs", rows, entry)):
        assert answer == {"best": expected["best"][place], "all": pytest.approx(expected["scores"][place], abs=1e-5)}


def test_external_data_of_pytorch(tmp_path):
    known = json.loads((EXPORTED / "external_data/model.json").read_text())
    package = tmp_path / "package"
    package.mkdir()
    (package / "model.onnx.data").write_bytes((EXPORTED / "external_data/model.onnx.data").read_bytes())
    found = answers(tmp_path, "external_data/model", known["inputs"]["features"], api())
    for answer, expected in zip(found, known["answers"]["output"], strict=True):
        assert answer == {"output": pytest.approx(expected, abs=1e-5)}
