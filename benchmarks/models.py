"""The model packages. What they answer does not matter; that both sides answer the same does."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import CLASSES, COLUMNS, TEXTS

OPSET = 17
NUMBER = {"type": "number"}


def write_mlp(folder: Path) -> None:
    """A 64 × 64 MLP over rows of `COLUMNS` numbers."""
    _write(folder, _mlp(), {f"x{index}": NUMBER for index in range(COLUMNS)}, {"y": NUMBER})


def write_strings(folder: Path) -> None:
    """The same MLP, its last features looked up by texts."""
    _write_typed(folder, {"numbers": (COLUMNS - TEXTS, "number")})


def write_mixed(folder: Path) -> None:
    """The same MLP over integers, truths, numbers and texts."""
    groups = {"integers": (TEXTS, "integer"), "truths": (TEXTS, "boolean")}
    _write_typed(folder, groups | {"numbers": (COLUMNS - 3 * TEXTS, "number")})


def write_classifier(folder: Path, *, zipmap: bool) -> None:
    """A logistic regression of three classes, its probabilities as a ZipMap or as an array."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    features = np.random.default_rng(7).random((300, COLUMNS)).astype(np.float32)
    names = np.array(["low", "middle", "high"])[np.digitize(features[:, :3].sum(axis=1), (1.2, 1.8))]
    model = LogisticRegression(max_iter=1000).fit(features, names)
    exported = to_onnx(model, features[:1], options={"zipmap": zipmap}, target_opset=OPSET)
    _write(folder, exported, {f"x{index}": NUMBER for index in range(COLUMNS)}, None)


def _write_typed(folder: Path, groups: dict[str, tuple[int, str]]) -> None:
    leaves = {name: [f"{name}_{place}" for place in range(count)] for name, (count, _) in groups.items()}
    types = {leaf: {"type": groups[name][1]} for name, named in leaves.items() for leaf in named}
    texts = {f"text_{place}": {"type": "string"} for place in range(TEXTS)}
    _write(folder, _looked_up(groups), types | texts, {"y": NUMBER}, onnx={"inputs": leaves})


def _write(folder: Path, model: Any, request: dict[str, Any], response: dict[str, Any] | None, **config: Any) -> None:
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    api: dict[str, Any] = {"url": "/", "request": {"data": {"type": "object", "properties": request}}}
    if response is not None:
        api["response"] = {"data": {"type": "object", "properties": response}}
    written = {"model_algorithm": "benchmark", "model_type": "ONNX", "apis": [api], **config}
    (folder / "config.json").write_text(json.dumps(written), encoding="utf-8")


@cache
def _mlp() -> Any:
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPRegressor

    features = np.random.default_rng(7).normal(size=(200, COLUMNS)).astype(np.float32)
    model = MLPRegressor(hidden_layer_sizes=(64, 64), solver="lbfgs", max_iter=20_000, tol=1e-1, random_state=7)
    model.fit(features, features.sum(axis=1))
    return to_onnx(model, features[:1], target_opset=OPSET)


def _looked_up(groups: dict[str, tuple[int, str]]) -> Any:
    """The MLP behind a cast of each group of columns, and a table of numbers for each column of texts."""
    import onnx
    from onnx import TensorProto, helper

    elements = {"integer": TensorProto.INT64, "boolean": TensorProto.BOOL, "number": TensorProto.FLOAT}
    nodes, inputs, parts = [], [], []
    for name, (count, kind) in groups.items():
        inputs.append(helper.make_tensor_value_info(name, elements[kind], [None, count]))
        nodes.append(helper.make_node("Cast", [name], [f"{name}_cast"], to=TensorProto.FLOAT))
        parts.append(f"{name}_cast")
    numbers = [place / len(CLASSES) for place in range(len(CLASSES))]
    for place in range(TEXTS):
        name = f"text_{place}"
        inputs.append(helper.make_tensor_value_info(name, TensorProto.STRING, [None, 1]))
        table = {"keys_strings": CLASSES, "values_floats": numbers, "default_float": 0.0}
        nodes.append(helper.make_node("LabelEncoder", [name], [f"{name}_cast"], domain="ai.onnx.ml", **table))
        parts.append(f"{name}_cast")
    model = onnx.ModelProto.FromString(_mlp().SerializeToString())
    nodes.append(helper.make_node("Concat", parts, [model.graph.input[0].name], axis=1))
    nodes.extend(model.graph.node)
    del model.graph.node[:], model.graph.input[:], model.opset_import[:]
    model.graph.node.extend(nodes)
    model.graph.input.extend(inputs)
    model.opset_import.extend([helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 3)])
    return model
