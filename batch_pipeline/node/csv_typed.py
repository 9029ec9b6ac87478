"""The quick reader of CSV rows: for blocks in which everything is in order, and for no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from batch_pipeline.node import csv_quotes
from batch_pipeline.node.csv_fields import Column, split_row

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, np.dtype[Any]]


def read(block: bytes, columns: Sequence[Column], *, multiline: bool) -> list[Array] | None:
    """The columns read at once by polars, or None where anything looks unusual."""
    import polars as pl

    types = {column.index: _read_as(column) for column in columns}
    if None in types.values() or len({(column.index, _read_as(column)) for column in columns}) != len(types):
        return None
    prepared = csv_quotes.regular(block, multiline=multiline)
    if prepared is None:
        return None
    text, count, first = prepared
    width = len(split_row(first))
    if width <= max(types):
        return None
    schema = {str(index): types.get(index) or pl.String() for index in range(width)}
    try:
        frame = pl.read_csv(
            text,
            has_header=False,
            schema=schema,
            columns=sorted(types),
            truncate_ragged_lines=True,
        )
    except pl.exceptions.PolarsError:  # a field that does not parse: the lenient reader says which
        return None
    if frame.height != count:
        return None
    arrays = []
    for column in columns:
        series = frame[str(column.index)]
        if series.null_count():
            return None
        array = _cast(series.to_numpy(), column)
        if array is None:
            return None
        arrays.append(array)
    return arrays


def _read_as(column: Column) -> pl.DataType | None:
    import polars as pl

    if column.is_text:
        return pl.String()
    if column.element.startswith("float") and column.type == "number":
        return pl.Float64()
    if column.element.startswith(("int", "uint")) and column.type in ("integer", "number"):
        return pl.Int64()
    return None


def _cast(array: Array, column: Column) -> Array | None:
    """The values in the input's own type, or None where one does not fit."""
    import numpy as np

    if column.element == "string":
        return array
    if column.element.startswith("float"):
        with np.errstate(over="ignore"):
            cast = array.astype(column.element, copy=False)
        return cast if np.isfinite(cast).all() else None
    limits = np.iinfo(column.element)
    if len(array) and (int(array.min()) < limits.min or int(array.max()) > limits.max):
        return None
    return array.astype(column.element, copy=False)
