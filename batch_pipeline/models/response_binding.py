"""How the ONNX outputs fill the leaves of a response. The other direction is request_binding's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from batch_pipeline.errors import ModelRefused
from batch_pipeline.models.binding import BasicType, Path, ResponseLeaf, Tensor
from batch_pipeline.models.onnx_model import describe
from batch_pipeline.models.package import Api
from batch_pipeline.models.request_binding import basic_type, is_number, select
from batch_pipeline.models.schema import Schema, element, hole, is_basic, json_path, kind_of, leaf_name, properties

Form = Literal["scalar", "array", "matrix", "map", "any"]
_RANKS: dict[Form, int] = {"array": 2, "matrix": 3}


@dataclass(frozen=True)
class Wanted:
    """A leaf of a response schema: the forms it may take, the best first, and the type of its elements."""

    path: Path
    forms: tuple[Form, ...]
    type: BasicType | None = None
    empty: bool = False
    """An object that the schema says has no properties."""


def bind_response(api: Api, outputs: tuple[Tensor, ...], problems: list[str]) -> tuple[ResponseLeaf, ...]:
    """The response's leaves and their ONNX outputs; every output under its own name where the schema has no leaves.

    What does not fit is added to `problems`. Raises ModelRefused where the response is no JSON schema.
    """
    maps = frozenset(tensor.name for tensor in outputs if tensor.element == "map")
    pairs = [(key, str(value)) for key, value in api.outputs.items()]
    said = {value: key for key, value in pairs} | dict(pairs)
    wanted = wanted_leaves(api.response_schema, maps | {said[name] for name in maps if name in said})
    if not wanted or (len(wanted) == 1 and _says_nothing(wanted[0], outputs)):
        return _as_it_comes(api, outputs, hole(api.response_schema) if wanted else (), problems)
    taken = _said(api, outputs, wanted, problems)
    _by_name(wanted, outputs, taken)
    _by_order(wanted, outputs, taken)
    bound = []
    for leaf in wanted:
        tensor = taken.get(leaf.path)
        form = None if tensor is None else _form(tensor, leaf, exact=False)
        if tensor is None:
            problems.append(f"response: no ONNX output is left for {_shown(leaf)}; the model gives {describe(outputs)}")
        elif form is None:
            problems.append(f"response: {_shown(leaf)} cannot hold the ONNX output {describe((tensor,))}")
        else:
            bound.append(ResponseLeaf(leaf.path, tensor.name, form, leaf.type))
    return tuple(bound)


def bind_scores(
    api: Api, outputs: tuple[Tensor, ...], labels: tuple[str, ...] | None, problems: list[str]
) -> tuple[ResponseLeaf, ...]:
    """The one output [N, K] (or [N, K, 1, 1]) that holds the class scores of `image_classification`."""
    said = {*api.outputs, *(name for name in api.outputs.values() if isinstance(name, str))}
    fitting = [one for one in outputs if is_number(one.element) and _is_scores(one)]
    fitting = [one for one in fitting if one.name in said] or fitting
    as_labelled = [one for one in fitting if labels is not None and one.shape[1] == len(labels)]
    if not fitting:
        problems.append(f"response: no ONNX output holds class scores [N, K]; the model gives {describe(outputs)}")
        return ()
    scores = (as_labelled or fitting)[0]
    if labels is not None and scores.shape[1] not in (None, len(labels)):
        problems.append(f"labels: there are {len(labels)}, but the ONNX output {describe((scores,))} needs one a class")
    return (ResponseLeaf(("scores",), scores.name, "array", "number"),)


def with_batch(outputs: tuple[Tensor, ...], batch: int | None) -> tuple[Tensor, ...]:
    """The outputs as a run gives them: a model of one row may leave the batch dimension out and say [K] for [1, K]."""
    left_out = [batch == 1 and len(one.shape) == 1 and one.shape[0] not in (None, 1) for one in outputs]
    return tuple(
        replace(one, shape=(1, *one.shape)) if out else one for one, out in zip(outputs, left_out, strict=True)
    )


def one_row_a_run(response: tuple[ResponseLeaf, ...], outputs: tuple[Tensor, ...]) -> int | None:
    """1 where an output that is used has a first dimension of fixed size, so that it cannot hold several rows."""
    used = {leaf.output for leaf in response}
    return 1 if any(one.name in used and one.shape and one.shape[0] is not None for one in outputs) else None


def wanted_leaves(schema: Schema | None, maps: frozenset[str] = frozenset()) -> tuple[Wanted, ...]:
    """The leaves of a response schema in document order. An object named like one of `maps` (a ZipMap) is one leaf."""
    return tuple(_walk(schema, (), maps)) if schema else ()


def _walk(schema: Schema, path: Path, maps: frozenset[str]) -> Iterator[Wanted]:
    kind = kind_of(schema, path)
    if is_basic(kind):
        yield Wanted(path, ("scalar",), kind)
    elif kind == "array":
        yield from _walk_array(schema, path, maps)
    elif kind == "object":
        inner = properties(schema, path)
        if path and (not inner or leaf_name(path) in maps):
            yield Wanted(path, ("map",), empty=schema.get("properties") == {})
        for name, child in {} if path and leaf_name(path) in maps else inner.items():
            yield from _walk(child, (*path, name), maps)
    elif kind is not None or path:
        raise ModelRefused(f"{json_path(path)}.type: {kind!r} is no JSON type")


def _walk_array(schema: Schema, path: Path, maps: frozenset[str]) -> Iterator[Wanted]:
    """An array of values is a leaf, an array of arrays of values too; an array of objects holds one object."""
    forms: list[Form] = ["array", "matrix", "any"]
    inner: Schema | None = schema
    for depth in range(2):
        place: Path = (*path, *([0] * (depth + 1)))
        inner = element(inner or {}, place)
        kind = None if inner is None else kind_of(inner, place)
        if inner is None or kind is None:
            yield Wanted(path, tuple(forms[depth:]))
            return
        if is_basic(kind):
            yield Wanted(path, (forms[depth],), kind)
            return
        if kind != "array":
            yield from _walk(inner, place, maps)
            return
    yield Wanted(path, ("any",))


def _said(api: Api, outputs: tuple[Tensor, ...], wanted: tuple[Wanted, ...], problems: list[str]) -> dict[Path, Tensor]:
    by_name = {tensor.name: tensor for tensor in outputs}
    paths = [leaf.path for leaf in wanted]
    said: dict[Path, Tensor] = {}
    for key, value in api.outputs.items():
        name, reference = (key, value) if key in by_name else (value, key)
        places = select(reference, paths)
        if not isinstance(name, str) or name not in by_name:
            problems.append(f"onnx.outputs: {key!r} is no ONNX output; the model gives {describe(outputs)}")
        elif len(places) != 1:
            problems.append(f"onnx.outputs: {reference!r} is no single value of the response")
        else:
            said[paths[places[0]]] = by_name[name]
    return said


def _by_name(wanted: tuple[Wanted, ...], outputs: tuple[Tensor, ...], taken: dict[Path, Tensor]) -> None:
    for leaf in wanted:
        for tensor in outputs:
            if leaf.path not in taken and tensor.name == leaf_name(leaf.path) and tensor not in taken.values():
                taken[leaf.path] = tensor


def _by_order(wanted: tuple[Wanted, ...], outputs: tuple[Tensor, ...], taken: dict[Path, Tensor]) -> None:
    """Each leaf takes the first unused output that fits; one of unknown width or rank only where none surely does."""
    for leaf in wanted:
        for exact in (True, False):
            free = (tensor for tensor in outputs if tensor not in taken.values())
            fitting = next((tensor for tensor in free if _form(tensor, leaf, exact=exact)), None)
            if leaf.path not in taken and fitting is not None:
                taken[leaf.path] = fitting


def _form(tensor: Tensor, leaf: Wanted, *, exact: bool) -> Form | None:
    """The first form of the leaf that the tensor has. `exact`: only where its shape leaves no doubt."""
    if not _type_fits(tensor, leaf.type):
        return None
    return next((form for form in leaf.forms if _shape_fits(tensor, form, exact=exact)), None)


def _shape_fits(tensor: Tensor, form: Form, *, exact: bool) -> bool:
    rank = len(tensor.shape)
    if tensor.element == "map" or form == "map":
        return tensor.element == "map" and form == "map"
    if rank == 0:  # ONNX Runtime says the same of a scalar and of an output whose rank is not known
        return not exact
    if form == "scalar":
        return rank == 1 or (rank == 2 and (tensor.shape[1] == 1 or (tensor.shape[1] is None and not exact)))
    return rank >= 1 if form == "any" else rank == _RANKS[form]


def _type_fits(tensor: Tensor, kind: BasicType | None) -> bool:
    if tensor.element == "map":
        return kind is None
    if kind == "number":
        return is_number(tensor.element)
    found = basic_type(tensor.element)
    return found is not None and kind in (found, None)


def _says_nothing(leaf: Wanted, outputs: tuple[Tensor, ...]) -> bool:
    """Whether an object is there for the outputs to stand in under their own names, not for a ZipMap."""
    return leaf.empty and leaf_name(leaf.path) not in {tensor.name for tensor in outputs}


def _as_it_comes(api: Api, outputs: tuple[Tensor, ...], base: Path, problems: list[str]) -> tuple[ResponseLeaf, ...]:
    """Every output under its own name, or those of `onnx.outputs` under the names given there, in the object `base`."""
    names = {tensor.name: tensor.name for tensor in outputs}
    if api.outputs:
        said = {key: value for key, value in api.outputs.items() if key in names and isinstance(value, str)}
        turned = {value: key for key, value in api.outputs.items() if key not in names and str(value) in names}
        if len(said) + len(turned) != len(api.outputs):
            problems.append(f"onnx.outputs: names an output the model lacks; it gives {describe(outputs)}")
        names = said | turned
    bound = []
    for tensor in outputs:
        if tensor.name not in names:
            continue
        if not _type_fits(tensor, None):
            problems.append(f"response: the ONNX output {describe((tensor,))} cannot be written as JSON")
        form: Form = "map" if tensor.element == "map" else "any"
        bound.append(ResponseLeaf((*base, names[tensor.name]), tensor.name, form))
    return tuple(bound)


def _is_scores(tensor: Tensor) -> bool:
    return len(tensor.shape) >= 2 and all(size == 1 for size in tensor.shape[2:])


def _shown(leaf: Wanted) -> str:
    return f"{json_path(leaf.path)} ({' or '.join(leaf.forms)}{f' of {leaf.type}' if leaf.type else ''})"
