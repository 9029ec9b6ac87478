"""Rows of answers as tables: the leaves of an answer become columns. No storage here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

BATCH_ROWS = 50_000
FIXED = ("source", "row", "error")
_DEEPEST = 25
"""Levels of lists and objects that a column has; values with more become JSON text. Parquet can't read back 34."""


def flatten(answer: object) -> dict[str, object]:
    """The leaves of one answer by dotted path; an array of one object is gone into (`data.0.label`), others are kept.

    An answer that is not an object stands under `output`. A leaf called as one of our own columns gets `answer.`
    before its name.
    """
    leaves: dict[str, object] = {}
    for name, value in _leaves(answer, ""):
        leaves[f"answer.{name}" if name in FIXED else name or "output"] = value
    return leaves


def _leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        yield from _leaves(value[0], f"{path}.0" if path else "0")
    else:
        yield path, value


def tables(rows: Iterable[Mapping[str, object]], batch_rows: int = BATCH_ROWS) -> Iterator[pa.Table]:
    """The rows in batches. Each table has the columns its own rows need: `source`, `row`, leaves, `error`."""
    iterator = iter(rows)
    while batch := list(islice(iterator, batch_rows)):
        yield _table(batch)


def unified(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """One schema for all batches; a column whose types do not go together becomes JSON text."""
    names = dict.fromkeys(name for schema in schemas for name in schema.names if name != "error")
    names["error"] = None
    return pa.schema([(name, _common_type([s.field(name).type for s in schemas if name in s.names])) for name in names])


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns and types of a unified schema."""
    return pa.table([_column(table, field) for field in schema], schema=schema)


def as_text(value: object) -> object:
    """A list or object as JSON text, for formats that have neither; anything else as it is."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _table(rows: Sequence[Mapping[str, object]]) -> pa.Table:
    names = dict.fromkeys(name for row in rows for name in row if name != "error")
    columns = {name: _array([row.get(name) for row in rows]) for name in names}
    columns["source"] = columns["source"].cast(pa.string())
    columns["row"] = columns["row"].cast(pa.int64())
    return pa.table({**columns, "error": pa.array([row.get("error") for row in rows], pa.string())})


def _array(values: list[Any]) -> pa.Array:
    numbers = all(isinstance(value, int | float) or value is None for value in values)
    if numbers and any(type(value) is float for value in values) and not any(type(value) is bool for value in values):
        values = _floats(values)
    try:
        array = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # several types, or integers of more than 64 bits
        return _json_array(values)
    return array if _levels(array.type) <= _DEEPEST else _json_array(values)


def _json_array(values: list[Any]) -> pa.Array:
    return pa.array([_json(value) for value in values], pa.string())


def _levels(kind: pa.DataType) -> int:
    """How deep the lists and objects of a column are nested."""
    inner = [kind.field(number).type for number in range(kind.num_fields)]
    return 1 + max(map(_levels, inner)) if inner else 0


def _floats(values: list[Any]) -> list[Any]:
    try:
        return [value if value is None else float(value) for value in values]
    except OverflowError:
        return values


def _common_type(types: Sequence[pa.DataType]) -> pa.DataType:
    try:
        fields = [pa.schema([("value", type_)]) for type_ in types]
        common = pa.unify_schemas(fields, promote_options="permissive").field("value").type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()
    return common


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    if field.name not in table.column_names:
        return pa.chunked_array([pa.nulls(len(table), field.type)])
    column = table.column(field.name)
    if column.type == field.type:
        return column
    if pa.types.is_string(field.type):
        return pa.chunked_array([pa.array([_json(value) for value in column.to_pylist()], pa.string())])
    return column.cast(field.type, safe=False)  # a very large integer among floats may lose its last digits


def _json(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
