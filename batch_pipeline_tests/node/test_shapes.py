"""Graphs of awkward shapes: every row's answer is what the model gives for that row alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import parser
from PIL import Image

from batch_pipeline.errors import NodeFailed
from batch_pipeline_tests.node.jobs import job, result, run, unit

TWO = {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}}
ROWS = [[1.0, 2.0], [3.5, -4.0], [0.5, 0.25], [7.0, 9.0], [2.0, 2.0]]
SUM = "y = ReduceSum<keepdims=0>(x)"
BY_ROW = "axis = Constant<value = int64[1] {1}>() y = ReduceSum<keepdims=0>(x, axis)"
BY_COLUMN = "axis = Constant<value = int64[1] {0}>() y = ReduceSum<keepdims=0>(x, axis)"
IN_ONE_ROW = "shape = Constant<value = int64[2] {1, -1}>() y = Reshape(x, shape)"


def model(folder: Path, takes: str, gives: str, body: str) -> Path:
    text = f'<ir_version: 8, opset_import: ["": 17]> g ({takes} x) => ({gives} y) {{ {body} }}'
    path = folder / "odd.onnx"
    onnx.save(parser.parse_model(text), path)
    return path


def response(leaf: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"out": leaf}}


def served(folder: Path, path: Path, leaf: dict[str, Any] | None = None) -> list[Any]:
    source = folder / "a.csv"
    source.write_text("".join(f"{a},{b}\n" for a, b in ROWS))
    schema = None if leaf is None else response(leaf)
    run(job(path, folder / "m", [unit(source)], request=TWO, response=schema))
    return [json.loads(line)["y" if leaf is None else "out"] for line in result(source).splitlines()]


def alone(path: Path, row: list[float]) -> Any:
    (found,) = ort.InferenceSession(path).run(None, {"x": np.array([row], np.float32)})
    return found


@pytest.mark.parametrize("body", [SUM, BY_ROW, BY_COLUMN, IN_ONE_ROW])
@pytest.mark.parametrize("gives", ["float", "float[1]", "float[2]", "float[1, 1]", "float[1, K]", "float[N]"])
def test_outputs_without_a_dimension_for_the_rows(tmp_path: Path, body: str, gives: str) -> None:
    try:
        path = model(tmp_path, "float[N, 2]", gives, body)
        expected = [alone(path, row) for row in ROWS]
    except (onnx.checker.ValidationError, RuntimeError, ort.capi.onnxruntime_pybind11_state.Fail):
        pytest.skip("the graph's own shapes contradict this")
    for found, one in zip(served(tmp_path, path), expected, strict=True):
        assert np.ravel(found).tolist() == np.ravel(one).tolist()


@pytest.mark.parametrize("batch", ["1", "8", "N"])
def test_fixed_batches(tmp_path: Path, batch: str) -> None:
    path = model(tmp_path, f"float[{batch}, 2]", f"float[{batch}, 2]", "y = Neg(x)")
    assert served(tmp_path, path) == [[-a, -b] for a, b in ROWS]


def test_a_model_of_one_row_may_leave_the_batch_dimension_out(tmp_path: Path) -> None:
    path = model(tmp_path, "float[1, 2]", "float[2]", "y = Squeeze(x)")
    assert served(tmp_path, path, {"type": "array", "items": {"type": "number"}}) == ROWS


def test_outputs_as_long_as_there_are_rows_are_not_taken_for_outputs_by_row(tmp_path: Path) -> None:
    body = "axis = Constant<value = int64[1] {0}>() z = ReduceSum<keepdims=0>(x, axis) y = Concat<axis=0>(z, z)"
    path = model(tmp_path, "float[N, 2]", "float", body)
    source = tmp_path / "a.csv"
    leaf = {"type": "array", "items": {"type": "number"}}
    for count in range(1, 6):
        source.write_text("1,2\n" * count)
        run(job(path, tmp_path / "m", [unit(source)], request=TWO, response=response(leaf)))
        assert [json.loads(line) for line in result(source).splitlines()] == [{"out": [1, 2, 1, 2]}] * count


def test_answers_of_different_lengths(tmp_path: Path) -> None:
    body = """
        zero = Constant<value = int64 {0}>() one = Constant<value = int64 {1}>() axis = Constant<value = int64[1] {0}>()
        n = Squeeze(x) steps = Range(zero, n, one) y = Unsqueeze(steps, axis)
    """
    path = model(tmp_path, "int64[1]", "int64[1, K]", body)
    source = tmp_path / "a.csv"
    source.write_text("3\n0\nno\n1\n")
    run(job(path, tmp_path / "m", [unit(source)], request={"type": "integer"}))
    answers = [json.loads(line) for line in result(source).splitlines()]
    assert [answer.get("y") for answer in answers] == [[0, 1, 2], [], None, [0]]


def test_images_of_different_sizes(tmp_path: Path) -> None:
    path = model(tmp_path, "float[N, 3, H, W]", "float[N]", "y = ReduceMean<axes=[1, 2, 3], keepdims=0>(x)")
    sources = [tmp_path / f"{number}.png" for number in range(100)]
    for number, source in enumerate(sources):
        Image.new("RGB", (5 + number % 7, 5 + number % 3), (number, number, number)).save(source)
    units = [unit(source, number) for number, source in enumerate(sources)]
    run(job(path, tmp_path / "m", units, preprocessor={"do_resize": False, "do_normalize": False}))
    for number, source in enumerate(sources):
        assert json.loads(result(source)) == {"y": pytest.approx(number / 255, abs=1e-6)}


def test_a_value_of_the_request_that_the_model_ignores_has_to_be_right_too(tmp_path: Path) -> None:
    path = model(tmp_path, "float[N, 1]", "float[N, 1]", "y = Neg(x)")
    leaves = {"x": "number", "id": "integer", "weight": "number", "known": "boolean", "note": "string"}
    request = {"type": "object", "properties": {name: {"type": kind} for name, kind in leaves.items()}}
    source = tmp_path / "a.csv"
    good, bad = "1,99999999999999999999,.5,true,hello", ["1,x,1,1,a", "1,1,x,1,a", "1,1,1,x,a", "1,1,,1,a", "1,1,1,1"]
    source.write_text("\n".join([good, *bad] * 50))
    run(job(path, tmp_path / "m", [unit(source)], request=request))
    answers = [json.loads(line) for line in result(source).splitlines()]
    codes = ["not_a_number", "not_a_number", "not_a_boolean", "missing_value", "too_few_fields"]
    assert [answer.get("error", {}).get("code") for answer in answers] == [None, *codes] * 50
    assert answers[0] == {"y": -1.0}


def test_more_values_than_the_response_has_room_for_fail_the_node(tmp_path: Path) -> None:
    path = model(
        tmp_path,
        "float[N, 2]",
        "float[N, K]",
        "keep = Constant<value = bool[2] {1, 1}>() y = Compress<axis=1>(x, keep)",
    )
    with pytest.raises(NodeFailed, match=r"output 'y' has 2 values a row.*one value, out"):
        served(tmp_path, path, {"type": "number"})
