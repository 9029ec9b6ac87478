"""The reader of CSV rows that finds what is wrong: all fields as texts, then vectors, then the doubtful one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from batch_pipeline.node import csv_blocks, csv_quotes
from batch_pipeline.node.csv_fields import (
    BLANKS,
    Column,
    FieldError,
    RowError,
    dtype_of,
    not_utf8,
    parse_value,
    split_row,
    too_short,
)

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, np.dtype[Any]]


def read(block: bytes, columns: Sequence[Column], *, multiline: bool) -> tuple[list[Array], dict[int, RowError]]:
    """(the columns' values, anything at all where there is an error; the errors by row)."""
    texts, errors = _quoted_texts(block, columns, multiline=multiline) or _texts(block, columns, multiline=multiline)
    arrays = []
    for column in columns:
        array, found = _column(texts[column.index], column)
        for number, error in found.items():
            errors.setdefault(number, error)
        arrays.append(array)
    return arrays, errors


Texts = tuple[dict[int, "pl.Series"], dict[int, RowError]]
"""The fields' texts by column, null where a row has no such field, and the errors of such rows."""


def _quoted_texts(block: bytes, columns: Sequence[Column], *, multiline: bool) -> Texts | None:
    """The texts of a block of regular structure that has quotes, None for another."""
    import polars as pl

    needed = sorted({column.index for column in columns})
    prepared = csv_quotes.regular(block, multiline=multiline) if b'"' in block else None
    if prepared is None or len(split_row(prepared[2])) <= needed[-1]:
        return None
    text, count, first = prepared
    schema = {str(index): pl.String() for index in range(len(split_row(first)))}
    frame = pl.read_csv(text, has_header=False, schema=schema, columns=needed, truncate_ragged_lines=True)
    if frame.height != count:
        return None
    empty = frame.select(pl.any_horizontal(pl.all().is_null())).to_series().arg_true().to_list()
    if not empty:
        return {index: frame[str(index)] for index in needed}, {}
    raw = csv_blocks.rows(block, multiline=multiline)
    odd = {number: split_row(raw[number].decode()) for number in empty}
    texts = {index: _with_odd(frame[str(index)], odd, index) for index in needed}
    return texts, _short_rows(columns, texts, raw, {})


def _texts(block: bytes, columns: Sequence[Column], *, multiline: bool) -> Texts:
    """The texts of any block: rows with quotes one by one, all others at once."""
    import polars as pl

    raw = csv_blocks.rows(block, multiline=multiline)
    errors: dict[int, RowError] = {}
    plain: list[str | None] = []
    odd: dict[int, list[str]] = {}
    for number, line in enumerate(raw):
        plain.append(None)
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            errors[number] = not_utf8(error)
            continue
        if not text or '"' in text:
            odd[number] = split_row(text)
        else:
            plain[number] = text
    needed = sorted({column.index for column in columns})
    fields = pl.Series("row", plain, dtype=pl.String).str.split_exact(",", needed[-1]).struct.unnest()
    texts = {index: _with_odd(fields.to_series(index), odd, index) for index in needed}
    return texts, _short_rows(columns, texts, raw, errors)


def _with_odd(texts: pl.Series, odd: dict[int, list[str]], index: int) -> pl.Series:
    if not odd:
        return texts
    return texts.scatter(list(odd), [row[index] if index < len(row) else None for row in odd.values()])


def _short_rows(
    columns: Sequence[Column], texts: dict[int, pl.Series], raw: Sequence[bytes], errors: dict[int, RowError]
) -> dict[int, RowError]:
    for column in columns:
        for number in texts[column.index].is_null().arg_true().to_list():
            if number not in errors:
                errors[number] = too_short(column, len(split_row(raw[number].decode())))
    return errors


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
    return np.zeros(len(texts), dtype=dtype_of(column.element)), np.ones(len(texts), dtype=bool)
