"""The exact reader of CSV rows, field by field: quickest for a few rows, and what the other readers agree with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from batch_pipeline.node import csv_blocks
from batch_pipeline.node.csv_fields import (
    Column,
    FieldError,
    RowError,
    TensorColumns,
    Value,
    dtype_of,
    is_rounded_once,
    not_utf8,
    parse_value,
    split_row,
    too_short,
)

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_NUMBERS = re.compile(rb"[-+0-9.eE,\n]+")


def read(block: bytes, tensors: Sequence[TensorColumns], *, multiline: bool) -> tuple[list[Array], dict[int, RowError]]:
    """(the rows of each tensor, anything at all where there is an error; the errors by row)."""
    if len(tensors) == 1 and tensors[0].is_one_block and (plain := _plain(block, tensors[0])) is not None:
        return [plain], {}
    columns = [column for tensor in tensors for column in tensor.columns]
    anything: list[Value] = [0] * len(columns)
    errors: dict[int, RowError] = {}
    rows: list[list[Value]] = []
    for number, row in enumerate(csv_blocks.rows(block, multiline=multiline)):
        values = read_row(row, columns)
        if isinstance(values, RowError):
            errors[number] = values
            values = anything
        rows.append(values)
    return list(_arrays(rows, tensors)), errors


def _plain(block: bytes, tensor: TensorColumns) -> Array | None:
    """The rows of nothing but plain numbers, which float() reads as they are meant; None where there is any doubt."""
    import numpy as np

    if _NUMBERS.fullmatch(block) is None:
        return None
    indexes = [column.index for column in tensor.columns]
    try:
        rows = [[float(fields[index]) for index in indexes] for fields in map(_fields, csv_blocks.lines(block))]
    except (IndexError, ValueError):
        return None
    wide = np.array(rows)
    if not is_rounded_once(wide, tensor.element):
        return None
    return wide.astype(tensor.element, copy=False)


def _fields(line: bytes) -> list[bytes]:
    return line.split(b",")


def _arrays(rows: list[list[Value]], tensors: Sequence[TensorColumns]) -> Iterator[Array]:
    import numpy as np

    start = 0
    for tensor in tensors:
        end = start + len(tensor.columns)
        dtype = dtype_of(tensor.element)
        if tensor.rank <= 1:
            yield np.array([values[start] for values in rows], dtype=dtype)
        else:
            yield np.array([values[start:end] for values in rows], dtype=dtype).reshape(len(rows), end - start)
        start = end


def read_row(row: bytes, columns: Sequence[Column]) -> list[Value] | RowError:
    """The values of one row, without its line end, or what is wrong with it."""
    try:
        fields = split_row(row.decode(), 1 + max(column.index for column in columns))
    except UnicodeDecodeError as error:
        return not_utf8(error)
    for column in columns:
        if column.index >= len(fields):
            return too_short(column, len(fields))
    values = []
    for column in columns:
        try:
            values.append(parse_value(fields[column.index], column))
        except FieldError as error:
            return column.error(error.code, str(error))
    return values
