"""The reader of CSV rows that finds what is wrong: all fields as texts, then vectors, then the doubtful one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from batch_pipeline.node import csv_blocks, csv_regular
from batch_pipeline.node.csv_fields import (
    BLANKS,
    Column,
    FieldError,
    RowError,
    dtype_of,
    integer_limits,
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
    texts, errors = _regular_texts(block, columns, multiline=multiline) or _texts(block, columns, multiline=multiline)
    arrays = []
    for column in columns:
        array, found = _column(texts[column.index], column)
        for number, error in found.items():
            errors.setdefault(number, error)
        arrays.append(array)
    return arrays, errors


Texts = tuple[dict[int, "pl.Series"], dict[int, RowError]]
"""The fields' texts by column, null where a row has no such field, and the errors of such rows."""


def _regular_texts(block: bytes, columns: Sequence[Column], *, multiline: bool) -> Texts | None:
    """The texts of a block of regular structure, None for another."""
    import polars as pl

    needed = sorted({column.index for column in columns})
    regular = csv_regular.regular(block, multiline=multiline)
    width = regular.width if regular is not None else None
    if regular is None or regular.odd or width is None or width <= needed[-1]:
        return None
    schema = {str(index): pl.String() for index in range(width)}
    frame = pl.read_csv(regular.text, has_header=False, schema=schema, columns=needed, truncate_ragged_lines=True)
    if frame.height != regular.count:
        return None
    texts = {index: _with_empty(frame[str(index)], regular, index) for index in needed}
    return texts, _short_rows(columns, texts, regular.row, {})


def _with_empty(texts: pl.Series, regular: csv_regular.Regular, index: int) -> pl.Series:
    """A null is an empty text where the row has the field."""
    if not texts.null_count():
        return texts
    return texts.fill_null("").scatter((regular.widths <= index).nonzero()[0], None)


def _texts(block: bytes, columns: Sequence[Column], *, multiline: bool) -> Texts:
    """The texts of any block: rows with quotes one by one, all others at once."""
    import numpy as np
    import polars as pl

    raw = csv_blocks.rows(block, multiline=multiline)
    needed = sorted({column.index for column in columns})
    width = needed[-1] + 1
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
            odd[number] = split_row(text, width)
        else:
            plain[number] = text
    rows = pl.Series("row", plain, dtype=pl.String)
    # A field costs memory whether a row has it or not.
    commas = rows.str.count_matches(",", literal=True).to_numpy()
    last = min(needed[-1], int(np.nanmax(commas, initial=0)))
    fields = rows.str.split_exact(",", last).struct.unnest()
    plain_texts = {index: fields.to_series(index) if index <= last else _none(len(rows)) for index in needed}
    texts = {index: _with_odd(column, odd, index) for index, column in plain_texts.items()}
    return texts, _short_rows(columns, texts, raw.__getitem__, errors)


def _none(count: int) -> pl.Series:
    """So many times no text. A series of its own: what is put into it is put in place."""
    import polars as pl

    return pl.Series([None], dtype=pl.String).new_from_index(0, count)


def _with_odd(texts: pl.Series, odd: dict[int, list[str]], index: int) -> pl.Series:
    if not odd:
        return texts
    return texts.scatter(list(odd), [row[index] if index < len(row) else None for row in odd.values()])


def _short_rows(
    columns: Sequence[Column],
    texts: dict[int, pl.Series],
    row: Callable[[int], bytes],
    errors: dict[int, RowError],
) -> dict[int, RowError]:
    for column in columns:
        for number in texts[column.index].is_null().arg_true().to_list():
            if number not in errors:
                errors[number] = too_short(column, len(split_row(row(number).decode())))
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
        kind = pl.Float32() if column.element == "float32" else pl.Float64()
        read = stripped.cast(kind, strict=False).fill_null(float("nan")).to_numpy()
        with np.errstate(over="ignore", invalid="ignore"):
            array = read.astype(column.element)
        doubtful = ~np.isfinite(array)
        if column.empty_is_nan:
            doubtful &= (stripped != "").fill_null(value=False).to_numpy()
        return array, doubtful
    if column.element.startswith(("float", "int", "uint")) and column.type in ("integer", "number"):
        whole = stripped.cast(pl.Int64, strict=False)
        doubtful = whole.is_null().to_numpy()
        numbers = whole.fill_null(0).to_numpy()
        lowest, highest = integer_limits(column.element)
        doubtful |= (numbers < lowest) | (numbers > min(highest, 2**63 - 1))
        return np.where(doubtful, 0, numbers).astype(column.element), doubtful
    return np.zeros(len(texts), dtype=dtype_of(column.element)), np.ones(len(texts), dtype=bool)
