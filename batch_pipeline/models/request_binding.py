"""How the leaves of a request, or a file, fill the ONNX inputs. The other direction is response_binding's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from batch_pipeline.models.binding import BasicType, ColumnsInput, FileInput, Leaf, Path, Tensor
from batch_pipeline.models.onnx_model import OnnxModel, describe
from batch_pipeline.models.package import Api
from batch_pipeline.models.schema import hole, json_path, leaf_name, leaves

_FLOATS = {"float16", "float32", "float64"}
_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_CHANNELS = (1, 3, 4)


def is_number(element: str) -> bool:
    """Whether tensors of this element hold numbers."""
    return element in _FLOATS or element in _INTEGERS


def basic_type(element: str) -> BasicType | None:
    """The JSON type of a tensor's elements; None for those that JSON has none for."""
    if element in _FLOATS:
        return "number"
    if element in _INTEGERS:
        return "integer"
    return {"string": "string", "bool": "boolean"}.get(element)  # type: ignore[return-value]


def bind_columns(api: Api, onnx: OnnxModel, problems: list[str]) -> tuple[tuple[Leaf, ...], tuple[ColumnsInput, ...]]:
    """The request's leaves and the ONNX inputs they fill. What does not fit is added to `problems`.

    Raises ModelRefused where the request is no JSON schema of basic values.
    """
    request = leaves(api.request_schema)
    if not request:
        return _leaves_from_inputs(api, onnx, problems)
    chosen = _chosen(api, onnx, request, problems)
    columns = []
    for tensor in onnx.inputs:
        if tensor.name in chosen:
            columns.append(ColumnsInput(tensor, chosen[tensor.name]))
            problems.extend(_misfits(columns[-1], request))
    missing = tuple(tensor for tensor in onnx.inputs if tensor.name not in chosen)
    if missing and not problems:
        has = ", ".join(json_path(leaf.path) for leaf in request)
        problems.append(f"request: nothing fills the ONNX inputs {describe(missing)}; the request has {has}")
    return request, tuple(columns)


def bind_file(onnx: OnnxModel, problems: list[str]) -> FileInput | None:
    """The one ONNX input a file fills; None, and a problem, where there is no such input."""
    if len(onnx.inputs) != 1:
        problems.append(f"request: one file fills one ONNX input, but the model takes {describe(onnx.inputs)}")
        return None
    tensor = onnx.inputs[0]
    rank = len(tensor.shape)
    if (tensor.element == "string" and (rank <= 1 or tensor.shape[1:] in ((1,), (None,)))) or (
        tensor.element == "uint8" and rank == 1
    ):
        return FileInput(tensor, "bytes")
    layout = _layout(tensor)
    if layout is None:
        problems.append(
            f"request: a file fills an image input ([N, C, H, W] or [N, H, W, C] of numbers), uint8 bytes [L], "
            f"or a string, not {describe((tensor,))}"
        )
        return None
    _, *sizes = tensor.shape
    channels, height, width = sizes if layout == "NCHW" else (sizes[2], sizes[0], sizes[1])
    return FileInput(tensor, "image", layout, height, width, channels)


def fixed_batch(onnx: OnnxModel, file: FileInput | None, problems: list[str]) -> int | None:
    """The batch size the ONNX inputs insist on, None where it is free. A file's bytes [L] are one request a run."""
    if file is not None and file.form == "bytes" and (file.tensor.element != "string" or not file.tensor.shape):
        return 1
    sizes = {tensor.shape[0] for tensor in onnx.inputs if tensor.shape} - {None}
    if len(sizes) > 1:
        problems.append(f"request: the ONNX inputs have different batch sizes: {describe(onnx.inputs)}")
    return min((size for size in sizes if size is not None), default=None)


def select(reference: object, paths: Sequence[Path]) -> tuple[int, ...]:
    """The places of the leaves a text names: `data.rows[0].a`, `data.rows.a`, a unique name `a`, or what holds them."""
    named = tuple(place for place, path in enumerate(paths) if leaf_name(path) == reference)
    if len(named) == 1:
        return named
    return tuple(place for place, path in enumerate(paths) if reference in tuple(_spellings(path)))


def _spellings(path: Path) -> Iterator[str]:
    for length in range(1, len(path) + 1):
        yield json_path(path[:length])
        yield ".".join(str(step) for step in path[:length])
        yield ".".join(step for step in path[:length] if isinstance(step, str))


def _chosen(api: Api, onnx: OnnxModel, request: tuple[Leaf, ...], problems: list[str]) -> dict[str, tuple[int, ...]]:
    """ONNX input name → leaves, by the first rule that fits: `onnx.inputs`, names, all leaves side by side."""
    paths = [leaf.path for leaf in request]
    said = _said(api, onnx, paths, problems)
    by_name = {
        tensor.name: found
        for tensor in onnx.inputs
        if tensor.name not in said and len(found := _named(tensor.name, paths)) == 1
    }
    if len(said) + len(by_name) == len(onnx.inputs) and (said or all(_is_column(one) for one in onnx.inputs)):
        return said | by_name
    if not said and len(onnx.inputs) == 1 and _width_fits(onnx.inputs[0], len(request)):
        return {onnx.inputs[0].name: tuple(range(len(request)))}
    if not said and len(onnx.inputs) == 1:
        has = f"{len(request)} values do" if len(request) > 1 else "1 value does"
        problems.append(f"request: {has} not fit the ONNX input {describe(onnx.inputs)}")
        return {}
    return said | by_name


def _said(api: Api, onnx: OnnxModel, paths: list[Path], problems: list[str]) -> dict[str, tuple[int, ...]]:
    names = {tensor.name for tensor in onnx.inputs}
    said: dict[str, tuple[int, ...]] = {}
    for key, value in api.inputs.items():
        forward = key in names
        if not forward and not (isinstance(value, str) and value in names):
            problems.append(f"onnx.inputs: {key!r} is no ONNX input; the model takes {describe(onnx.inputs)}")
            continue
        name = key if forward else value
        references = (value if isinstance(value, list) else [value]) if forward else [key]
        for reference in references:
            places = select(reference, paths)
            if not places:
                problems.append(f"onnx.inputs: {reference!r} is no value of the request")
            said[name] = (*said.get(name, ()), *places)
    return said


def _named(name: str, paths: list[Path]) -> tuple[int, ...]:
    return tuple(place for place, path in enumerate(paths) if leaf_name(path) == name)


def _is_column(tensor: Tensor) -> bool:
    return _width_fits(tensor, 1)


def _width_fits(tensor: Tensor, width: int) -> bool:
    """Whether so many leaves fill the tensor: one fills [N] and [N, 1], several [N, width]."""
    if len(tensor.shape) == 1:
        return width == 1
    return len(tensor.shape) == 2 and tensor.shape[1] in (width, None)


def _misfits(column: ColumnsInput, request: tuple[Leaf, ...]) -> Iterator[str]:
    tensor = column.tensor
    shown = describe((tensor,))
    if basic_type(tensor.element) is None:
        yield f"request: the ONNX input {shown} takes neither numbers nor strings"
        return
    if not _width_fits(tensor, len(column.leaves)):
        yield f"request: {len(column.leaves)} values cannot fill the ONNX input {shown}"
    for place in column.leaves:
        leaf = request[place]
        if (leaf.type == "string") != (tensor.element == "string"):
            yield f"request: {json_path(leaf.path)} is a {leaf.type}, which cannot fill the ONNX input {shown}"


def _leaves_from_inputs(
    api: Api, onnx: OnnxModel, problems: list[str]
) -> tuple[tuple[Leaf, ...], tuple[ColumnsInput, ...]]:
    """Leaves for a request that names none: one a named column, one an element of a wider input."""
    base = hole(api.request_schema)
    found: list[Leaf] = []
    columns = []
    for tensor in onnx.inputs:
        kind = basic_type(tensor.element)
        width = tensor.shape[1] if len(tensor.shape) == 2 else 1 if len(tensor.shape) == 1 else None
        if kind is None or width is None:
            problems.append(
                f"request: the schema has no values, and the ONNX input {describe((tensor,))} does not tell "
                f"how many columns it takes; [N], or [N, K] with K known, is expected"
            )
            continue
        names = [tensor.name] if width == 1 else [f"{tensor.name}_{place + 1}" for place in range(width)]
        columns.append(ColumnsInput(tensor, tuple(range(len(found), len(found) + width))))
        found.extend(Leaf((*base, name), kind) for name in names)
    return tuple(found), tuple(columns)


def _layout(tensor: Tensor) -> Literal["NCHW", "NHWC"] | None:
    if len(tensor.shape) != 4 or not is_number(tensor.element):
        return None
    first, last = tensor.shape[1], tensor.shape[3]
    if first in _CHANNELS or (first is None and last not in _CHANNELS):
        return "NCHW"
    return "NHWC" if last in _CHANNELS or last is None else None
