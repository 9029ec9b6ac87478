"""Which CSV column fills which leaf of the request. Reading the columns themselves is the compute node's work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from batch_pipeline.errors import InputFailed, ModelRefused
from batch_pipeline.models.binding import BasicType, Path
from batch_pipeline.models.schema import Schema, element, from_leaves, is_basic, json_path, kind_of, leaves, properties

LAST_INDEX = 2**31 - 1
"""The highest index of a column; no row is so long that it had one."""


@dataclass(frozen=True)
class MappedLeaf:
    """A leaf of the request and its column: `index` (0-based), or `column` (a name) until the header is known."""

    path: Path
    type: BasicType
    index: int | None
    column: str | None = None


@dataclass(frozen=True)
class ColumnMapping:
    """The leaves that are filled, in the order of the request's schema; leaves that are left out are not here."""

    leaves: tuple[MappedLeaf, ...]

    def request(self, values: Sequence[object]) -> object:
        """The JSON request of one row; `values` are in the order of `leaves`, already of their types."""
        document: object = {}
        for leaf, value in zip(self.leaves, values, strict=True):
            document = _put(document if leaf is not self.leaves[0] else None, leaf.path, value)
        return document

    def rule(self) -> dict[str, Any]:
        """The mapping as a rule, in one canonical form: equal mappings have equal rules."""
        return from_leaves([(leaf.path, _keys(leaf)) for leaf in self.leaves])

    def resolve(self, header: Sequence[str]) -> ColumnMapping:
        """The same mapping with every column name turned into the index it has in this header.

        Raises InputFailed (`column_missing`) naming the column where the header lacks it or has it twice.
        """
        return ColumnMapping(tuple(_resolved(leaf, header) for leaf in self.leaves))


def generate(schema: Schema) -> dict[str, Any]:
    """The rule made from a request's schema: the schema itself, its leaves numbered 0, 1, 2, … in document order.

    Raises ModelRefused where the schema is none.
    """
    leaves(schema)
    return _numbered(schema, iter(range(1 << 62)))


def parse(rule: Mapping[str, Any] | None, schema: Schema, *, header: bool) -> ColumnMapping:
    """The mapping a rule describes; None stands for the generated rule.

    A leaf with no index, a negative one, or one that is no integer is left out. Raises ModelRefused, naming the
    JSON path, for a rule that is not the schema's shape, for a `column` where files have no header, and for an index
    that no column can have.
    """
    chosen = {leaf.path: leaf for leaf in _rule_leaves(generate(schema) if rule is None else rule, schema, (), header)}
    return ColumnMapping(tuple(chosen[leaf.path] for leaf in leaves(schema) if leaf.path in chosen))


def _numbered(schema: Schema, indexes: Iterator[int]) -> dict[str, Any]:
    rule = dict(schema)
    kind = kind_of(schema)
    if is_basic(kind):
        rule["index"] = next(indexes)
    elif kind == "object":
        rule["properties"] = {name: _numbered(child, indexes) for name, child in properties(schema).items()}
    elif kind == "array" and (child := element(schema)) is not None:
        numbered = _numbered(child, indexes)
        rule["items"] = [numbered] if isinstance(schema["items"], list) else numbered
    return rule


def _rule_leaves(rule: object, schema: Schema, path: Path, header: bool) -> Iterator[MappedLeaf]:
    if not isinstance(rule, Mapping):
        raise ModelRefused(f"mapping rule at {json_path(path)}: a JSON schema is expected, not {rule!r}")
    wanted, given = kind_of(schema, path), kind_of(rule, path)
    if given is not None and given != (wanted or "object"):
        raise ModelRefused(f"mapping rule at {json_path(path)}: the type is {given!r}, the model's is {wanted!r}")
    if is_basic(wanted):
        yield from _leaf(rule, path, wanted, header)
    elif wanted == "array":
        inner, given_inner = element(schema, path), element(rule, path)
        if given_inner is not None and inner is None:
            raise ModelRefused(f"mapping rule at {json_path((*path, 0))}: the model's request has no such value")
        if given_inner is not None and inner is not None:
            yield from _rule_leaves(given_inner, inner, (*path, 0), header)
    else:
        known = properties(schema, path)
        for name, child in properties(rule, path).items():
            if name not in known:
                has = ", ".join(known) or "nothing"
                raise ModelRefused(f"mapping rule at {json_path((*path, name))}: the model's request has {has} there")
            yield from _rule_leaves(child, known[name], (*path, name), header)


def _leaf(rule: Mapping[str, Any], path: Path, kind: BasicType, header: bool) -> Iterator[MappedLeaf]:
    index, column = rule.get("index"), rule.get("column")
    if column is not None:
        if not isinstance(column, str):
            raise ModelRefused(f"mapping rule at {json_path(path)}: column is a name, not {column!r}")
        if not header:
            raise ModelRefused(f"mapping rule at {json_path(path)}: column {column!r} needs csv.header: true")
        if index is not None:
            raise ModelRefused(f"mapping rule at {json_path(path)}: index or column, not both")
        yield MappedLeaf(path, kind, None, column)
    elif isinstance(index, int) and not isinstance(index, bool) and index >= 0:
        if index > LAST_INDEX:
            raise ModelRefused(f"mapping rule at {json_path(path)}: an index is at most {LAST_INDEX}")
        yield MappedLeaf(path, kind, index)


def _keys(leaf: MappedLeaf) -> dict[str, Any]:
    where = {"index": leaf.index} if leaf.column is None else {"column": leaf.column}
    return {"type": leaf.type, **where}


def _resolved(leaf: MappedLeaf, header: Sequence[str]) -> MappedLeaf:
    if leaf.column is None:
        return leaf
    places = [index for index, name in enumerate(header) if name == leaf.column]
    if len(places) != 1:
        how = "no column" if not places else f"{len(places)} columns"
        raise InputFailed("column_missing", f"the header has {how} {leaf.column!r}, needed for {json_path(leaf.path)}")
    return replace(leaf, index=places[0])


def _put(document: Any, path: Path, value: object) -> object:
    """The document with one more value at `path`; None is a place where nothing stands yet."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        return [_put(document[0] if document else None, rest, value)]
    document = {} if document is None else document
    document[step] = _put(document.get(step), rest, value)
    return document
