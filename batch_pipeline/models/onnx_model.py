"""What an ONNX file takes and gives, as ONNX Runtime reads it. Running it is the compute node's work."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_pipeline.errors import ModelRefused
from batch_pipeline.models.binding import Tensor

_ELEMENTS = {"float": "float32", "double": "float64"}


@dataclass(frozen=True)
class OnnxModel:
    """Inputs and outputs of an ONNX graph, in its order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def inspect(path: Path) -> OnnxModel:
    """Loads an ONNX file and the external data beside it. Raises ModelRefused, in one line, where it does not load."""
    from batch_pipeline.onnx_runtime import ERRORS, onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except ERRORS as error:
        raise ModelRefused(f"{path.name} does not load: {_one_line(error, path)}") from error
    return OnnxModel(
        tuple(_tensor(found) for found in session.get_inputs()),
        tuple(_tensor(found) for found in session.get_outputs()),
    )


def describe(tensors: tuple[Tensor, ...]) -> str:
    """Tensors for a message: `label int64[N], probabilities float32[N, 3]`."""
    return ", ".join(f"{one.name} {one.element}[{', '.join(_size(one.shape))}]" for one in tensors) or "none"


def _size(shape: tuple[int | None, ...]) -> list[str]:
    return [("?" if place else "N") if size is None else str(size) for place, size in enumerate(shape)]


def _tensor(found: Any) -> Tensor:
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in found.shape)
    return Tensor(found.name, _element(found.type), shape)


def _element(kind: str) -> str:
    """A numpy dtype name, `string` or `map`; anything else stays as ONNX Runtime calls it and is never bound."""
    tensor = re.fullmatch(r"tensor\((\w+)\)", kind)
    if tensor:
        return _ELEMENTS.get(tensor[1], tensor[1])
    return "map" if kind.startswith("seq(map(") else kind


def _one_line(error: Exception, path: Path) -> str:
    text = str(error).replace(str(path), path.name).replace(f"{path.parent}/", "")
    return " ".join(text.split())
