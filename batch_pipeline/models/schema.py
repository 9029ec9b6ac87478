"""The JSON schemas of config.json: the leaves of a request, and the reverse. No ONNX and no columns here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard, get_args

from batch_pipeline.errors import ModelRefused
from batch_pipeline.models.binding import BasicType, Leaf, Path

Schema = Mapping[str, Any]
"""One JSON schema as `json.loads` gives it."""

_BASIC = get_args(BasicType)
_DEEPEST = 100


def is_basic(kind: str | None) -> TypeGuard[BasicType]:
    """Whether a schema's `type` is one a CSV field can hold."""
    return kind in _BASIC


def json_path(path: Path) -> str:
    """`("data", "rows", 0, "a")` as people write it: `data.rows[0].a`; `(root)` for the document itself."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".") or "(root)"


def leaf_name(path: Path) -> str:
    """The last property name of a path, which is what ONNX names are compared with; empty for the root."""
    return next((step for step in reversed(path) if isinstance(step, str)), "")


def kind_of(schema: object, path: Path = ()) -> str | None:
    """The `type` of a schema, read from its other keys where it is not said; None where nothing tells.

    Raises ModelRefused, naming the JSON path, for what is not a JSON schema.
    """
    if not isinstance(schema, Mapping):
        raise ModelRefused(f"{json_path(path)}: a JSON schema (an object with a type) is expected, not {schema!r}")
    if len(path) > _DEEPEST:
        raise ModelRefused(f"a JSON schema of more than {_DEEPEST} levels cannot be used")
    kind = schema.get("type")
    if isinstance(kind, list):
        kinds = [one for one in kind if one != "null"]
        kind = kinds[0] if len(kinds) == 1 else kind
    if kind is None:
        return "object" if "properties" in schema else "array" if "items" in schema else None
    if not isinstance(kind, str):
        raise ModelRefused(f"{json_path(path)}.type: one type is expected, not {kind!r}")
    return kind


def properties(schema: Schema, path: Path = ()) -> Mapping[str, Any]:
    """The properties of an object's schema, in document order. Raises ModelRefused where they are no object."""
    found = schema.get("properties")
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ModelRefused(f"{json_path(path)}.properties: an object is expected, not {found!r}")
    return found


def element(schema: Schema, path: Path = ()) -> Schema | None:
    """The schema of an array's elements: `items` as a schema or as a list of one; None where it says nothing."""
    items = schema.get("items")
    if isinstance(items, list):
        if len(items) > 1:
            raise ModelRefused(f"{json_path(path)}.items: a schema or a list of one is expected, not {len(items)}")
        items = items[0] if items else None
    if items is not None and not isinstance(items, Mapping):
        raise ModelRefused(f"{json_path(path)}.items: a JSON schema is expected, not {items!r}")
    return items or None


def leaves(schema: Schema | None) -> tuple[Leaf, ...]:
    """The basic values of a request, in document order; an array counts as its one element (path element 0).

    None, `{}` and objects with no properties have no leaves. Raises ModelRefused naming the JSON path.
    """
    return tuple(_walk(schema, ())) if schema else ()


def _walk(schema: Schema, path: Path) -> Iterator[Leaf]:
    kind = kind_of(schema, path)
    if is_basic(kind):
        yield Leaf(path, kind)
    elif kind == "object":
        for name, child in properties(schema, path).items():
            yield from _walk(child, (*path, name))
    elif kind == "array":
        child = element(schema, path)
        if child is not None:
            yield from _walk(child, (*path, 0))
    elif kind is not None or path:
        expected = ", ".join((*_BASIC, "object", "array"))
        raise ModelRefused(f"{json_path(path)}.type: {kind!r} is none of {expected}")


def from_leaves(found: Sequence[tuple[Path, Mapping[str, Any]]]) -> dict[str, Any]:
    """The schema whose leaves are at these paths, in this order, each with the given keys (`type`, …)."""
    if not found:
        return {}
    if not found[0][0]:
        return dict(found[0][1])
    groups: dict[str | int, list[tuple[Path, Mapping[str, Any]]]] = {}
    for path, keys in found:
        groups.setdefault(path[0], []).append((path[1:], keys))
    if 0 in groups:
        return {"type": "array", "items": [from_leaves(groups[0])]}
    return {"type": "object", "properties": {str(name): from_leaves(inner) for name, inner in groups.items()}}


def schema_of(found: Sequence[Leaf]) -> dict[str, Any]:
    """The plainest request schema with these leaves: `leaves(schema_of(x)) == x`."""
    return from_leaves([(leaf.path, {"type": leaf.type}) for leaf in found])


def hole(schema: Schema | None) -> Path:
    """Where the values of a request with no leaves belong: the first innermost object or array, or the root."""
    path: Path = ()
    while schema:
        kind = kind_of(schema, path)
        if kind == "array":
            schema, path = element(schema, path), (*path, 0)
        elif kind == "object" and properties(schema, path):
            name, schema = next(iter(properties(schema, path).items()))
            path = (*path, name)
        else:
            break
    return path
