"""Real ONNX models that some values are poison to. Each doubles its one column, `x`, for all others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

ENDLESS = 1e15
"""Turns of a loop: years."""
STUCK = 12_000
"""The width of a square matrix that is multiplied with itself: a minute or more in one operator."""


def endless(path: Path) -> Path:
    """Turns in a loop as often as the largest value of the call says. It can be ended between two turns."""
    value, bools = helper.make_tensor_value_info, TensorProto.BOOL
    turn = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["sum", "one"], ["more"])],
        "turn",
        [value("i", TensorProto.INT64, []), value("go", bools, []), value("sum", TensorProto.FLOAT, [])],
        [value("on", bools, []), value("more", TensorProto.FLOAT, [])],
        [helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["turns"], to=TensorProto.INT64),
        helper.make_node("Loop", ["turns", "", "zero"], ["sum"], body=turn),
        *_doubled("sum"),
    ]
    return _saved(path, nodes)


def stuck(path: Path) -> Path:
    """Multiplies a square matrix as wide as the largest value of the call. Nothing ends that one operator."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["width"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["width", "vector"], ["edge"]),
        helper.make_node("Concat", ["edge", "edge"], ["square"], axis=0),
        helper.make_node("ConstantOfShape", ["square"], ["matrix"]),
        helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
        helper.make_node("ReduceMax", ["product"], ["sum"], keepdims=0),
        *_doubled("sum"),
    ]
    return _saved(path, nodes, [helper.make_tensor("vector", TensorProto.INT64, [1], [1])])


def folded(path: Path) -> Path:
    """Has products of large matrices that no input has a say in: minutes, for whoever computes them at loading."""
    nodes = [helper.make_node("ConstantOfShape", ["square"], ["product0"])]
    nodes += [helper.make_node("MatMul", [f"product{n}", "product0"], [f"product{n + 1}"]) for n in range(8)]
    nodes += [helper.make_node("ReduceMax", ["product8"], ["sum"], keepdims=0), *_doubled("sum")]
    return _saved(path, nodes, [helper.make_tensor("square", TensorProto.INT64, [2], [STUCK, STUCK])])


def doubling(path: Path) -> Path:
    """To which nothing is poison."""
    return _saved(path, _doubled("zero"))


def _doubled(waited_for: str) -> list[Any]:
    return [
        helper.make_node("Mul", [waited_for, "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Add", ["twice", "nothing"], ["y"]),
    ]


def _saved(path: Path, nodes: list[Any], initializers: list[Any] | None = None) -> Path:
    rows = helper.make_tensor_value_info
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])
    graph = helper.make_graph(
        nodes,
        "poison",
        [rows("x", TensorProto.FLOAT, [None, 1])],
        [rows("y", TensorProto.FLOAT, [None, 1])],
        [zero, *(initializers or [])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path
