"""Rows of a CSV to the arrays that the ONNX inputs take, and to row errors. Never a Python loop over good rows.

Three readers that agree: a typed one for blocks in which everything is in order, a vectorised one that reads texts
and finds the bad ones, and an exact one, for a few rows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batch_pipeline.models.binding import Binding
from batch_pipeline.models.mapping import ColumnMapping, MappedLeaf
from batch_pipeline.node import csv_blocks, csv_exact, csv_texts, csv_typed
from batch_pipeline.node.csv_fields import (
    Column,
    FieldError,
    RowError,
    TensorColumns,
    Value,
    parse_value,
    split_row,
)

if TYPE_CHECKING:
    import numpy as np

    from batch_pipeline.parameters import CsvOptions

    Array = np.ndarray[Any, np.dtype[Any]]


SMALL_BLOCK = 2048
"""Up to so many bytes the exact reader is the quickest."""


@dataclass
class Rows:
    """`inputs` hold the `count - len(errors)` good rows, in row order."""

    count: int
    inputs: dict[str, Array] = field(default_factory=dict)
    errors: dict[int, RowError] = field(default_factory=dict)


def tensor_columns(binding: Binding, mapping: ColumnMapping, csv: CsvOptions) -> tuple[TensorColumns, ...]:
    """What each ONNX input takes from a row, and what else the request has. Every leaf must have an index by now."""
    mapped = {leaf.path: leaf for leaf in mapping.leaves}
    tensors = []
    for source in binding.columns:
        columns = []
        for position in source.leaves:
            leaf = mapped[binding.leaves[position].path]
            assert leaf.index is not None, "column names are resolved before rows are read"
            columns.append(Column(leaf.index, leaf.path, leaf.type, source.tensor.element, csv.missing == "nan"))
        tensors.append(
            TensorColumns(source.tensor.name, source.tensor.element, len(source.tensor.shape), tuple(columns))
        )
    taken = {column.path for tensor in tensors for column in tensor.columns}
    for leaf in mapping.leaves:
        if leaf.path not in taken and leaf.index is not None:
            element = {"number": "float64", "boolean": "bool"}.get(leaf.type, "string")
            column = Column(leaf.index, leaf.path, leaf.type, element, csv.missing == "nan")
            tensors.append(TensorColumns("", element, 1, (column,)))
    return tuple(tensors)


def parse(block: bytes, tensors: Sequence[TensorColumns], *, multiline: bool) -> Rows:
    """The rows of a block of whole rows."""
    if not any(tensor.columns for tensor in tensors):
        return Rows(len(csv_blocks.rows(block, multiline=multiline)))
    arrays, errors = _read(block, tensors, multiline=multiline)
    rows = Rows(len(arrays[0]), errors=errors)
    keep = _good(rows) if errors else None
    for tensor, array in zip(tensors, arrays, strict=True):
        if tensor.name:
            rows.inputs[tensor.name] = array if keep is None else array[keep]
    return rows


def _read(
    block: bytes, tensors: Sequence[TensorColumns], *, multiline: bool
) -> tuple[list[Array], dict[int, RowError]]:
    if len(block) <= SMALL_BLOCK:
        return csv_exact.read(block, tensors, multiline=multiline)
    if (typed := csv_typed.read(block, tensors, multiline=multiline)) is not None:
        return typed
    columns = [column for tensor in tensors for column in tensor.columns]
    values, errors = csv_texts.read(block, columns, multiline=multiline)
    rest = iter(values)
    return [tensor.side_by_side([next(rest) for _ in tensor.columns]) for tensor in tensors], errors


def _good(rows: Rows) -> Array:
    import numpy as np

    keep = np.ones(rows.count, dtype=bool)
    keep[list(rows.errors)] = False
    return keep


def raw_rows(block: bytes, *, multiline: bool, fields: int = sys.maxsize) -> list[list[str]]:
    """The first fields of every row, at most so many, as texts; bytes that are not UTF-8 show as the replacement
    character."""
    return [split_row(row.decode(errors="replace"), fields) for row in csv_blocks.rows(block, multiline=multiline)]


def request_values(fields: Sequence[str], mapping: ColumnMapping) -> list[Value | None]:
    """A row's values in the mapping's order, as the JSON request has them; None for what is missing or unfit."""
    return [_json_value(fields, leaf) for leaf in mapping.leaves]


def _json_value(fields: Sequence[str], leaf: MappedLeaf) -> Value | None:
    if leaf.index is None or leaf.index >= len(fields):
        return None
    element = {"string": "string", "number": "float64", "integer": "int64", "boolean": "bool"}[leaf.type]
    try:
        value = parse_value(fields[leaf.index], Column(leaf.index, leaf.path, leaf.type, element))
    except FieldError:
        return None
    return value
