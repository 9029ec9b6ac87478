"""How a request reaches the ONNX inputs and how the ONNX outputs become the response. Plain data; see binder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    keys: tuple[str, ...] | None = None
    """Those of a map whose values come as an array, [N, len(keys)]: a node that took the ZipMap out fills this in."""


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
