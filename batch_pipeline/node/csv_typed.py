"""The quick reader of CSV rows: columns at once, each in its own type, and the few doubtful rows exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from batch_pipeline.node import csv_exact, csv_regular
from batch_pipeline.node.csv_fields import (
    DIGITS,
    INTEGER,
    NUMBER,
    Column,
    RowError,
    TensorColumns,
    dtype_of,
    integer_limits,
)

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, np.dtype[Any]]

_FEW = 64
_SHARE = 8
"""Up to so many rows, or one in so many, are read exactly; where more are doubtful, this is not the quick way."""
_RARE = 100
"""What one row in so many has at most is quicker looked at in those rows alone."""
_TRUE, _FALSE = ("true", "True", "TRUE", "1"), ("false", "False", "FALSE", "0")


def read(
    block: bytes, tensors: Sequence[TensorColumns], *, multiline: bool
) -> tuple[list[Array], dict[int, RowError]] | None:
    """(the rows of each tensor, anything at all where there is an error; the errors by row).

    None where the block is not regular, or much of it is doubtful.
    """
    regular = csv_regular.regular(block, multiline=multiline)
    frame = _frame(regular, tensors) if regular is not None else None
    if regular is None or frame is None:
        return None
    doubtful = _Doubtful(regular)
    arrays = [_rows(frame, tensor, doubtful) for tensor in tensors]
    numbers = doubtful.numbers
    if len(numbers) > max(_FEW, regular.count // _SHARE):
        return None
    if numbers:  # what polars hands over may not be written to
        arrays = [array if array.flags.writeable else array.copy() for array in arrays]
    return arrays, _exactly(regular, numbers, tensors, arrays)


class _Doubtful:
    """The rows that are to be read exactly: nothing is known of them but that they are not as they should be."""

    def __init__(self, regular: csv_regular.Regular) -> None:
        import numpy as np

        self.regular = regular
        self._marked = np.zeros(regular.count, dtype=bool)
        self._marked[list(regular.odd)] = True

    def mark(self, rows: Array) -> None:
        """`rows`: a bool a row."""
        self._marked |= rows

    @property
    def numbers(self) -> list[int]:
        import numpy as np

        found: list[int] = np.flatnonzero(self._marked).tolist()
        return found


def _frame(regular: csv_regular.Regular, tensors: Sequence[TensorColumns]) -> pl.DataFrame | None:
    import polars as pl

    kinds = {(column.index, _read_as(column)) for tensor in tensors for column in tensor.columns}
    types = dict(kinds)
    width = regular.width
    if len(types) < len(kinds) or width is None or width <= max(types):
        return None
    try:
        frame = pl.read_csv(
            regular.text,
            has_header=False,
            schema={str(index): types.get(index, pl.String()) for index in range(width)},
            columns=sorted(types),
            truncate_ragged_lines=True,
            ignore_errors=True,
        )
    except pl.exceptions.PolarsError:  # not regular in polars' eyes
        return None
    return frame if frame.height == regular.count else None


def _read_as(column: Column) -> pl.DataType:
    import polars as pl

    if column.element == "string" or column.type in ("boolean", "string"):
        return pl.String()
    if column.type == "number" and column.element.startswith("float"):
        return pl.Float32() if column.element == "float32" else pl.Float64()
    return pl.Int64()


def _rows(frame: pl.DataFrame, tensor: TensorColumns, doubtful: _Doubtful) -> Array:
    import polars as pl

    if tensor.is_one_block:
        names = [str(column.index) for column in tensor.columns]
        if frame.columns != names:
            # Under names of its own, as one column of the CSV may be taken more than once.
            frame = pl.DataFrame([frame[name].alias(str(place)) for place, name in enumerate(names)])
        return _floats(frame.to_numpy(order="c"), tensor.columns, doubtful)
    arrays = [_values(frame[str(column.index)], column, doubtful) for column in tensor.columns]
    return tensor.side_by_side(arrays)


def _values(series: pl.Series, column: Column, doubtful: _Doubtful) -> Array:
    import numpy as np

    if column.is_text:
        return _texts(series, column, doubtful)
    if column.element == "string" or column.type == "boolean":
        return _parsed_texts(series, column, doubtful)
    if column.type == "number" and column.element.startswith("float"):
        return _floats(series.to_numpy()[:, None], (column,), doubtful)[:, 0]
    if series.null_count():
        doubtful.mark(series.is_null().to_numpy())
        series = series.fill_null(0)
    numbers = series.to_numpy()
    lowest, highest = integer_limits(column.element)
    if len(numbers) and (int(numbers.min()) < lowest or int(numbers.max()) > highest):
        outside: Array = np.asarray((numbers < lowest) | (numbers > highest))
        doubtful.mark(outside)
        numbers = np.where(outside, 0, numbers)
    return numbers.astype(dtype_of(column.element), copy=False)


def _floats(block: Array, columns: Sequence[Column], doubtful: _Doubtful) -> Array:
    """The block in the tensor's own type, with NaN for what is no number."""
    import numpy as np

    with np.errstate(over="ignore"):
        block = block.astype(columns[0].element, copy=False)
    right: Array = np.isfinite(block)
    if not right.all():
        for position, column in enumerate(columns):
            if column.empty_is_nan:
                right[:, position] |= doubtful.regular.empty(column.index)
        doubtful.mark(np.asarray(~right.all(axis=1)))
    return block


def _texts(series: pl.Series, column: Column, doubtful: _Doubtful) -> Array:
    """A missing text is an empty one where the row has the field, which its width tells."""
    if nulls := series.null_count():
        is_rare = nulls * _RARE <= len(series)
        doubtful.mark(series.is_null().to_numpy() if is_rare else doubtful.regular.widths <= column.index)
        series = series.fill_null("")
    return series.to_numpy()


def _parsed_texts(series: pl.Series, column: Column, doubtful: _Doubtful) -> Array:
    """Booleans, and numbers that stay texts; what is not written in the usual way is read exactly."""
    texts = series.fill_null("")
    truths, right = _truths(texts) if column.type == "boolean" else (None, _written_as(column, texts))
    if not right.all():
        doubtful.mark(~right)
    if truths is None or column.element == "string":
        return texts.to_numpy()
    return truths.astype(dtype_of(column.element))


def _written_as(column: Column, texts: pl.Series) -> Array:
    """Which are written as the numbers that they stay texts of."""
    pattern = INTEGER if column.type == "integer" else NUMBER
    right = texts.str.contains(f"^(?:{pattern.pattern})$".replace(r"\d", "[0-9]"))  # polars' \d is of any script
    return (right & (texts.str.len_bytes() <= DIGITS)).to_numpy()


def _truths(texts: pl.Series) -> tuple[Array, Array]:
    """(which are true, which are true or false). Most are written as JSON has them."""
    import numpy as np

    true = (texts == "true").to_numpy()
    right = true | (texts == "false").to_numpy()
    others = np.flatnonzero(~right)
    if len(others):
        rest = texts.gather(others)
        true, right = true.copy(), right.copy()
        true[others], right[others] = rest.is_in(_TRUE).to_numpy(), rest.is_in([*_TRUE, *_FALSE]).to_numpy()
    return true, right


def _exactly(
    regular: csv_regular.Regular, numbers: Sequence[int], tensors: Sequence[TensorColumns], arrays: Sequence[Array]
) -> dict[int, RowError]:
    """Reads these rows again, into the arrays, and returns the errors."""
    columns = [column for tensor in tensors for column in tensor.columns]
    errors: dict[int, RowError] = {}
    for number in numbers:
        values = csv_exact.read_row(regular.row(number), columns)
        if isinstance(values, RowError):
            errors[number] = values
            continue
        rest = iter(values)
        for tensor, array in zip(tensors, arrays, strict=True):
            for position in range(len(tensor.columns)):
                array[(number, position) if array.ndim > 1 else number] = next(rest)
    return errors
