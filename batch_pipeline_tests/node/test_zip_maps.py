"""A ZipMap that was taken out of its model answers what it answers in it, to the last byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from batch_pipeline.errors import NodeFailed
from batch_pipeline.node import engine as engine_module
from batch_pipeline.node.batching import BatchRule, answer_rows
from batch_pipeline.node.engine import OnnxEngine
from batch_pipeline.node.preview import preview_csv
from batch_pipeline.parameters import CsvOptions
from batch_pipeline_tests.node.jobs import job, result, rows_schema, run, unit

CPU = ("CPUExecutionProvider",)
FOUR = rows_schema("a", "b", "c", "d")


def scored(path: Path, labels: Sequence[Any], *, before: Sequence[Any] = (), scores: str = "x") -> Path:
    """Maps of the scores, which are the rows themselves or what the nodes before make of them."""
    kind = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_int64s"
    node = helper.make_node("ZipMap", [scores], ["maps"], domain="ai.onnx.ml", **{kind: labels})
    key = TensorProto.STRING if kind == "classlabels_strings" else TensorProto.INT64
    value = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    maps = helper.make_value_info("maps", helper.make_sequence_type_proto(helper.make_map_type_proto(key, value)))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None])
    graph = helper.make_graph([*before, node], "graph", [x], [maps])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def written(model: str | Path, folder: Path, lines: Sequence[str], leaves: Sequence[str], **more: Any) -> bytes:
    folder.mkdir()
    (folder / "a.csv").write_text("\n".join(lines))
    run(job(model, folder / "m", [unit(folder / "a.csv")], request=rows_schema(*leaves), **more))
    return result(folder / "a.csv")


def as_it_is(patch: pytest.MonkeyPatch) -> None:
    """No ZipMap is taken out from now on."""
    patch.setattr(engine_module, "LARGEST", 0)


def rows_of(count: int, width: int) -> list[str]:
    numbers = np.random.default_rng(3).normal(size=(count, width)) * 5
    return [",".join(f"{number:.3g}" for number in row) for row in numbers]


@pytest.mark.parametrize("count", [1, 5, 300, 5000])
@pytest.mark.parametrize("join_input", [False, True])
def test_an_exported_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, join_input: bool) -> None:
    lines = rows_of(count, 4)
    if count > 1:
        lines[1] = "not,a,row"
    taken_out = written("logistic_zipmap", tmp_path / "1", lines, "abcd", join_input=join_input)
    as_it_is(monkeypatch)
    assert taken_out == written("logistic_zipmap", tmp_path / "2", lines, "abcd", join_input=join_input)
    assert taken_out.count(b'"output_probability":{"setosa":') == count - (count > 1)


@pytest.mark.parametrize("count", [1, 3, 700])
@pytest.mark.parametrize("labels", [["only"], [10, 9, -1], ["b", 'a"\\\n', "é"], ["", "B", "a", "b"]])
def test_whichever_labels_and_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: list[Any], count: int
) -> None:
    """NaN, infinities and denormals among the scores: what the logarithm of any number gives."""
    before = [helper.make_node("Log", ["x"], ["scores"])]
    model = scored(tmp_path / "model.onnx", labels, before=before, scores="scores")
    lines = rows_of(count, len(labels))
    lines[0] = ",".join(["0", "1", "-1", "1e-45"][: len(labels)])
    taken_out = written(model, tmp_path / "1", lines, [f"x{place}" for place in range(len(labels))])
    as_it_is(monkeypatch)
    assert taken_out == written(model, tmp_path / "2", lines, [f"x{place}" for place in range(len(labels))])
    assert b"null" in taken_out


def test_no_map_is_made(tmp_path: Path) -> None:
    path = scored(tmp_path / "model.onnx", ["b", "a"])
    engine = OnnxEngine(path, threads=1, providers=CPU, outputs=["maps"], maps=["maps"])
    assert engine.keys == {"maps": ("a", "b")}
    assert engine.run({"x": np.array([[1, 2], [3, 4]], np.float32)})["maps"].tolist() == [[2, 1], [4, 3]]
    unasked = OnnxEngine(path, threads=1, providers=CPU, outputs=["maps"])
    assert unasked.run({"x": np.array([[1, 2]], np.float32)})["maps"] == [{"a": 2, "b": 1}]


@pytest.mark.parametrize("schema", ["an object for the maps", "an object of that name"])
def test_a_response_with_a_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schema: str) -> None:
    name = "scores" if schema == "an object for the maps" else "output_probability"
    leaves = {"of": {"type": "object", "properties": {"label": {"type": "string"}, name: {"type": "object"}}}}
    response = {"type": "object", "properties": leaves}
    lines = rows_of(400, 4)
    taken_out = written("logistic_zipmap", tmp_path / "1", lines, "abcd", response=response)
    as_it_is(monkeypatch)
    assert taken_out == written("logistic_zipmap", tmp_path / "2", lines, "abcd", response=response)
    assert taken_out.startswith(b'{"of":{"label":"')


def test_scores_that_the_zipmap_would_not_take_are_refused_as_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many columns as there are, one less than there are labels: the error is ONNX Runtime's own."""
    model = scored(tmp_path / "model.onnx", [0, 1, 2])
    taken_out = written(model, tmp_path / "1", rows_of(3, 2), "ab")
    as_it_is(monkeypatch)
    assert taken_out == written(model, tmp_path / "2", rows_of(3, 2), "ab")
    assert taken_out.count(b"inference_failed") == taken_out.count(b"number of classlabels[3]") == 3


def test_scores_without_a_batch_dimension_are_one_map(tmp_path: Path) -> None:
    before = [helper.make_node("ReduceSum", ["x", "axes"], ["scores"], keepdims=0)]
    before.insert(0, helper.make_node("Constant", [], ["axes"], value_ints=[0]))
    path = scored(tmp_path / "model.onnx", ["a", "b"], before=before, scores="scores")
    engine = OnnxEngine(path, threads=1, providers=CPU, outputs=["maps"], maps=["maps"])
    x = np.array([[1, 2]], np.float32)
    assert answer_rows(engine, BatchRule(most=1), {"x": x}, 1).outputs == {"maps": [{"a": 1, "b": 2}]}


def test_a_model_that_does_not_load_without_its_zipmap_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scored(tmp_path / "model.onnx", ["a", "b"])
    _, found = engine_module.without_zip_maps(path.read_bytes(), ["maps"])
    monkeypatch.setattr(engine_module, "without_zip_maps", lambda *_: (b"not a model", found))
    engine = OnnxEngine(path, threads=1, providers=CPU, outputs=["maps"], maps=["maps"])
    assert not engine.keys
    assert engine.run({"x": np.array([[1, 2]], np.float32)})["maps"] == [{"a": 1, "b": 2}]


def test_a_file_that_is_no_model_fails_the_node(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"ZipMap, but no model")
    with pytest.raises(NodeFailed, match=r"model\.onnx does not load"):
        OnnxEngine(path, threads=1, providers=CPU, outputs=["maps"], maps=["maps"])


def test_a_preview_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = "\n".join(rows_of(3, 4)).encode()
    taken_out = preview_csv(job("logistic_zipmap", tmp_path / "m", request=FOUR), data, 3)
    as_it_is(monkeypatch)
    assert taken_out == preview_csv(job("logistic_zipmap", tmp_path / "m", request=FOUR), data, 3)


def test_numbers_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = CsvOptions(missing="nan")
    lines = ["1,,3,4", *rows_of(2, 4)]
    taken_out = written("logistic_zipmap", tmp_path / "1", lines, "abcd", csv=options)
    as_it_is(monkeypatch)
    assert taken_out == written("logistic_zipmap", tmp_path / "2", lines, "abcd", csv=options)
