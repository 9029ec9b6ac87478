"""How a request reaches the ONNX inputs and how the ONNX outputs become the response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from batch_pipeline.errors import ModelRefused

if TYPE_CHECKING:
    from batch_pipeline.models.mapping import ColumnMapping
    from batch_pipeline.models.onnx_model import OnnxModel
    from batch_pipeline.models.package import Api, PackageConfig

BasicType = Literal["string", "number", "integer", "boolean"]
Path = tuple[str | int, ...]
"""Where a leaf stands in a JSON document: property names, and 0 for the one element of an array."""


@dataclass(frozen=True)
class Leaf:
    """One basic value of the request, in document order."""

    path: Path
    type: BasicType


@dataclass(frozen=True)
class Tensor:
    """One input or output of the ONNX graph. `element` is a numpy dtype name, or `string`, or `map` for a ZipMap."""

    name: str
    element: str
    shape: tuple[int | None, ...]
    """`None` where the size is free; the first is the batch."""


@dataclass(frozen=True)
class ColumnsInput:
    """An ONNX input filled from request leaves: `leaves` are positions in `Binding.leaves`.

    One leaf gives [N] or [N, 1] (as `tensor.shape` has it), several stand side by side as [N, len(leaves)].
    """

    tensor: Tensor
    leaves: tuple[int, ...]


@dataclass(frozen=True)
class FileInput:
    """The ONNX input filled from a file: its bytes as they are, or the image decoded from them."""

    tensor: Tensor
    form: Literal["bytes", "image"]
    layout: Literal["NCHW", "NHWC"] | None = None
    height: int | None = None
    width: int | None = None
    channels: int | None = None


@dataclass(frozen=True)
class ResponseLeaf:
    """A leaf of the response and the ONNX output it takes.

    `form`: `scalar` ([N] or [N, 1]), `array` ([N, K]), `matrix` ([N, K, M]), `map` (a ZipMap),
    `any` (no schema, or none of the elements: as it comes).
    """

    path: Path
    output: str
    form: Literal["scalar", "array", "matrix", "map", "any"]
    type: BasicType | None = None
    """What the schema says of the value (of an array's elements); None without a schema."""


@dataclass(frozen=True)
class Binding:
    """One API of a model bound to its ONNX graph. Plain data: picklable, comparable."""

    kind: Literal["json", "file"]
    leaves: tuple[Leaf, ...]
    columns: tuple[ColumnsInput, ...]
    """For `json`: every ONNX input."""
    file: FileInput | None
    """For `file`: the one ONNX input."""
    batch: int | None
    """Rows in each run of the model, None where they are free; see `request_binding.fixed_batch`."""
    response: tuple[ResponseLeaf, ...]
    classification: bool
    """`image_classification`: the one response leaf holds the class scores, the answer is label and scores."""
    labels: tuple[str, ...] | None


def bind(config: PackageConfig, api: Api, onnx: OnnxModel, labels: tuple[str, ...] | None) -> Binding:
    """One API of a package bound to its ONNX graph. Raises ModelRefused with everything that does not fit."""
    binding, problems = try_to_bind(config, api, onnx, labels)
    if binding is None:
        raise ModelRefused("; ".join(problems))
    return binding


def try_to_bind(
    config: PackageConfig, api: Api, onnx: OnnxModel, labels: tuple[str, ...] | None
) -> tuple[Binding | None, list[str]]:
    """The binding and no problems, or None and everything that does not fit."""
    # The rules are made of this module's types.
    from batch_pipeline.models import labels as label_rules
    from batch_pipeline.models import request_binding, response_binding

    problems: list[str] = []
    leaves: tuple[Leaf, ...] = ()
    columns: tuple[ColumnsInput, ...] = ()
    response: tuple[ResponseLeaf, ...] = ()
    file = request_binding.bind_file(onnx, problems) if api.kind == "file" else None
    batch = request_binding.fixed_batch(onnx, file, problems)
    outputs = response_binding.with_batch(onnx.outputs, batch)
    try:
        if api.kind == "json":
            leaves, columns = request_binding.bind_columns(api, onnx, problems)
    except ModelRefused as error:
        problems.append(f"request: {error}")
    try:
        labels = labels if api.labels is None else label_rules.parse(api.labels, "labels")
    except ModelRefused as error:
        problems.append(error.message)
    try:
        if config.classifies_images:
            response = response_binding.bind_scores(api, outputs, labels, problems)
        else:
            response = response_binding.bind_response(api, outputs, problems)
    except ModelRefused as error:
        problems.append(f"response: {error}")
    batch = batch or response_binding.one_row_a_run(response, outputs)
    if problems:
        return None, problems
    return Binding(api.kind, leaves, columns, file, batch, response, config.classifies_images, labels), []


def check_mapping(binding: Binding, mapping: ColumnMapping) -> None:
    """Raises ModelRefused, naming every leaf that the model needs and the mapping leaves out."""
    from batch_pipeline.models.schema import json_path

    mapped = {leaf.path for leaf in mapping.leaves}
    needed = sorted({place for column in binding.columns for place in column.leaves})
    missing = [json_path(binding.leaves[place].path) for place in needed if binding.leaves[place].path not in mapped]
    if missing:
        raise ModelRefused(f"mapping: the model needs {', '.join(missing)}; give each an index of 0 or more")
