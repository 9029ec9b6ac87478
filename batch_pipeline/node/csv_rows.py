"""Rows of a CSV to the arrays that the ONNX inputs take, and to row errors. Never a Python loop over good rows.

Three readers that agree: a typed one for blocks in which everything is in order, a vectorised one that reads texts
and finds the bad rows, and csv_fields, row by row, for rows of odd structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batch_pipeline.models.binding import Binding
from batch_pipeline.models.mapping import ColumnMapping, MappedLeaf
from batch_pipeline.node import csv_blocks, csv_quotes
from batch_pipeline.node.csv_fields import BLANKS, Column, FieldError, RowError, Value, parse_value, split_row

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from batch_pipeline.parameters import CsvOptions

    Array = np.ndarray[Any, np.dtype[Any]]


SMALL_BLOCK = 2048
"""Up to so many bytes the exact reader is the quickest."""


@dataclass(frozen=True)
class TensorColumns:
    """The columns that stand side by side in one ONNX input."""

    name: str
    element: str
    rank: int
    columns: tuple[Column, ...]


@dataclass
class Rows:
    """`inputs` hold the `count - len(errors)` good rows, in row order."""

    count: int
    inputs: dict[str, Array] = field(default_factory=dict)
    errors: dict[int, RowError] = field(default_factory=dict)


def tensor_columns(binding: Binding, mapping: ColumnMapping, csv: CsvOptions) -> tuple[TensorColumns, ...]:
    """What each ONNX input takes from a row. Every leaf that is needed must have an index by now."""
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
    return tuple(tensors)


def parse(block: bytes, tensors: Sequence[TensorColumns], *, multiline: bool) -> Rows:
    """The rows of a block of whole rows."""
    columns = [column for tensor in tensors for column in tensor.columns]
    if not columns:
        return Rows(len(_rows(block, multiline)))
    if len(block) <= SMALL_BLOCK:
        rows, values = _exact(block, columns, multiline=multiline)
    elif (typed := _typed(block, columns, multiline=multiline)) is not None:
        rows, values = Rows(len(typed[0])), typed
    else:
        rows, values = _lenient(block, columns, multiline=multiline)
    keep = _good(rows) if rows.errors else None
    position = 0
    for tensor in tensors:
        arrays = values[position : position + len(tensor.columns)]
        position += len(tensor.columns)
        rows.inputs[tensor.name] = _side_by_side(arrays, tensor, keep)
    return rows


def _side_by_side(arrays: list[Array], tensor: TensorColumns, keep: Array | None) -> Array:
    import numpy as np

    if tensor.rank <= 1:
        block = arrays[0]
    else:
        block = np.empty((len(arrays[0]), len(arrays)), dtype=_dtype(tensor.element))
        for position, array in enumerate(arrays):
            block[:, position] = array
    return block if keep is None else block[keep]


def _good(rows: Rows) -> Array:
    import numpy as np

    keep = np.ones(rows.count, dtype=bool)
    keep[list(rows.errors)] = False
    return keep


def _dtype(element: str) -> np.dtype[Any]:
    import numpy as np

    return np.dtype(object if element == "string" else element)


# --- everything in order: typed ------------------------------------------------------------------------------


def _typed(block: bytes, columns: Sequence[Column], *, multiline: bool) -> list[Array] | None:
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


# --- a few rows: one by one -----------------------------------------------------------------------------------


def _exact(block: bytes, columns: Sequence[Column], *, multiline: bool) -> tuple[Rows, list[Array]]:
    """What the other readers must agree with."""
    import numpy as np

    raw = _rows(block, multiline)
    rows = Rows(len(raw))
    values = [np.zeros(len(raw), dtype=_dtype(column.element)) for column in columns]
    for number, line in enumerate(raw):
        try:
            fields = split_row(line.decode())
        except UnicodeDecodeError as error:
            rows.errors[number] = _not_utf8(error)
            continue
        for column in columns:
            if column.index >= len(fields):
                rows.errors[number] = _too_short(column, len(fields))
                break
        else:
            for column, array in zip(columns, values, strict=True):
                try:
                    array[number] = parse_value(fields[column.index], column)
                except FieldError as error:
                    rows.errors[number] = column.error(error.code, str(error))
                    break
    return rows, values


def _not_utf8(error: UnicodeDecodeError) -> RowError:
    return RowError("invalid_utf8", f"byte {error.start} of the row is not UTF-8")


def _too_short(column: Column, fields: int) -> RowError:
    there = "only 1 field" if fields == 1 else f"only {fields} fields" if fields else "no fields"
    return column.error("too_few_fields", f"the row has {there}")


# --- something odd: texts, checked one by one where a vector does not do --------------------------------------


def _rows(block: bytes, multiline: bool) -> list[bytes]:
    if multiline and b'"' in block:
        return list(csv_blocks.records(block))
    return csv_blocks.lines(block)


def _lenient(block: bytes, columns: Sequence[Column], *, multiline: bool) -> tuple[Rows, list[Array]]:
    import polars as pl

    raw = _rows(block, multiline)
    rows = Rows(len(raw))
    needed = sorted({column.index for column in columns})
    plain: list[str | None] = []
    odd: dict[int, list[str]] = {}
    for number, line in enumerate(raw):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            rows.errors[number] = _not_utf8(error)
            plain.append(None)
            continue
        if not text or '"' in text:
            odd[number] = split_row(text)
            plain.append(None)
        else:
            plain.append(text)
    fields = pl.Series("row", plain, dtype=pl.String).str.split_exact(",", needed[-1]).struct.unnest()
    texts = {index: _with_odd(fields.to_series(index), odd, index) for index in needed}
    _find_short_rows(rows, columns, texts, raw)
    arrays = []
    for column in columns:
        array, errors = _column(texts[column.index], column)
        for number, wrong in errors.items():
            rows.errors.setdefault(number, wrong)
        arrays.append(array)
    return rows, arrays


def _with_odd(texts: pl.Series, odd: dict[int, list[str]], index: int) -> pl.Series:
    if not odd:
        return texts
    return texts.scatter(list(odd), [row[index] if index < len(row) else None for row in odd.values()])


def _find_short_rows(rows: Rows, columns: Sequence[Column], texts: dict[int, pl.Series], raw: list[bytes]) -> None:
    for column in columns:
        for number in texts[column.index].is_null().arg_true().to_list():
            if number not in rows.errors:
                rows.errors[number] = _too_short(column, len(split_row(raw[number].decode())))


def _column(texts: pl.Series, column: Column) -> tuple[Array, dict[int, RowError]]:
    """One column's values, with anything at all where there is an error (or no text)."""
    import numpy as np

    if column.is_text:
        return texts.to_numpy(), {}
    array, doubtful = _vector(texts, column)
    present = texts.is_not_null().to_numpy()
    errors = {}
    for number in np.flatnonzero(doubtful & present).tolist():
        try:
            array[number] = parse_value(texts[number], column)
        except FieldError as error:
            errors[number] = column.error(error.code, str(error))
    return array, errors


def _vector(texts: pl.Series, column: Column) -> tuple[Array, Array]:
    """(the values, where parse_value must decide): a vector's guess that is only trusted where it is sure."""
    import numpy as np
    import polars as pl

    stripped = texts.str.strip_chars(BLANKS)
    if column.element.startswith("float") and column.type == "number":
        wide = stripped.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
        with np.errstate(over="ignore", invalid="ignore"):
            array = wide.astype(column.element)
        doubtful = ~np.isfinite(array)
        if column.empty_is_nan:
            doubtful &= (stripped != "").fill_null(value=False).to_numpy()
        return array, doubtful
    if column.element.startswith(("float", "int", "uint")) and column.type in ("integer", "number"):
        whole = stripped.cast(pl.Int64, strict=False)
        doubtful = whole.is_null().to_numpy()
        numbers = whole.fill_null(0).to_numpy()
        if column.element.startswith("float"):
            doubtful |= np.abs(numbers) > 2048  # exact even in float16
        else:
            limits = np.iinfo(column.element)
            doubtful |= (numbers < limits.min) | (numbers > min(int(limits.max), 2**63 - 1))
        return np.where(doubtful, 0, numbers).astype(column.element), doubtful
    return np.zeros(len(texts), dtype=_dtype(column.element)), np.ones(len(texts), dtype=bool)


# --- the row as it stands, for people and for join_input -----------------------------------------------------


def raw_rows(block: bytes, *, multiline: bool) -> list[list[str]]:
    """The fields of every row, as texts; bytes that are not UTF-8 show as the replacement character."""
    return [split_row(row.decode(errors="replace")) for row in _rows(block, multiline)]


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
