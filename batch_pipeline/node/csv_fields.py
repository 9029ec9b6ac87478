"""One row and one field of a CSV, exactly: what a text means, and what is wrong with it. Slow, and right."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache, cached_property
from struct import Struct
from typing import TYPE_CHECKING, Any

from batch_pipeline.models.binding import BasicType, Path

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

BLANKS = " \t"
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_FIELD = re.compile(r'"((?:[^"]|"")*+)(?:"|\Z)([^,]*+)|([^,]*+)', re.DOTALL)
DIGITS = 400
"""An integer of more than one more is too large."""
_DOUBLE, _BITS = Struct("<d"), Struct("<Q")
_REST, _HALF = 2**29 - 1, 2**28
"""Of a float64's bits those that a float32 has no room for, and what they are half-way between two of them."""
_SUBNORMAL = 2.0**-126
_EXACT = {"float16": 2**11, "float32": 2**24, "float64": 2**53}
_TOO_LARGE = {"float16": 2.0**16 - 2.0**4, "float32": 2.0**128 - 2.0**103, "float64": math.inf}
"""From here on a number rounds to infinity."""
_LARGEST = 2.0**128 - 2.0**104
"""The largest float32."""
_SHOWN = 40

Value = float | int | bool | str


@dataclass(frozen=True)
class RowError:
    """Why a row has no answer. Stands in the result in the row's place."""

    code: str
    message: str


class FieldError(Exception):
    """A field that cannot be what the model takes."""

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        super().__init__(reason)


@dataclass(frozen=True)
class Column:
    """A column of the row on its way to an ONNX input: where it stands, what it is, what it becomes."""

    index: int
    path: Path
    type: BasicType
    element: str
    """The element type of the ONNX input: a numpy name, or `string`."""
    empty_is_nan: bool = False

    @property
    def is_text(self) -> bool:
        """Taken as it is: nothing about it can be wrong."""
        return self.type == "string" and self.element == "string"

    def error(self, code: str, reason: str) -> RowError:
        return RowError(code, f"column {self.index} ({json_path(self.path)}): {reason}")


@dataclass(frozen=True)
class TensorColumns:
    """The columns that stand side by side in one ONNX input."""

    name: str
    """Empty for a column that no input takes: it is part of the request, so it has to be right all the same."""
    element: str
    rank: int
    columns: tuple[Column, ...]

    @cached_property
    def is_one_block(self) -> bool:
        """Whether its columns are numbers that need no conversion of their own."""
        return (
            self.rank > 1
            and self.element in ("float32", "float64")
            and all(column.type == "number" for column in self.columns)
        )

    def side_by_side(self, arrays: Sequence[Array]) -> Array:
        """The values of each column as the input takes them all."""
        import numpy as np

        if self.rank <= 1:
            return arrays[0]
        block = np.empty((len(arrays[0]), len(arrays)), dtype=dtype_of(self.element))
        for position, array in enumerate(arrays):
            block[:, position] = array
        return block


def json_path(path: Path) -> str:
    """`("data", "rows", 0, "x")` as people write it: `data.rows[0].x`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".") or "the value"


def split_row(row: str, most: int = sys.maxsize) -> list[str]:
    """The first fields of one row, at most so many (RFC 4180; a blank row has none).

    A quote that opens no field is itself, what follows a closing quote belongs to the field, and a quote that is
    never closed closes at the row's end: as Python's csv module reads it.
    """
    if not row:
        return []
    if '"' not in row:
        return row.split(",", most)[:most]
    fields: list[str] = []
    position = -1
    while position < len(row) and len(fields) < most:
        match = _FIELD.match(row, position + 1)
        assert match is not None  # the expression matches the empty field
        quoted, rest, plain = match.groups()
        fields.append(plain if quoted is None else quoted.replace('""', '"') + rest)
        position = match.end()
    return fields


def parse_value(text: str, column: Column) -> Value:
    """What the model takes for this field. Raises FieldError."""
    if column.is_text:
        return text
    stripped = text.strip(BLANKS)
    if not stripped:
        if column.empty_is_nan and column.element.startswith("float"):
            return math.nan
        raise FieldError("missing_value", "the field is empty")
    if column.type == "boolean":
        return _boolean(stripped, column)
    if NUMBER.fullmatch(stripped) is None:
        raise FieldError("not_a_number", f"{shown(text)} is not a number")
    if column.element.startswith("float"):
        return _float(stripped, column)
    if column.element == "string":
        if column.type == "integer":
            _integer(stripped)
        return stripped
    return _fitting_integer(stripped, column)


def _boolean(stripped: str, column: Column) -> Value:
    value = BOOLEANS.get(stripped.lower())
    if value is None:
        raise FieldError("not_a_boolean", f"{shown(stripped)} is none of true, false, 1, 0")
    return stripped if column.element == "string" else value


def _float(stripped: str, column: Column) -> float:
    value = _nearest_single(stripped) if column.element == "float32" else float(stripped)
    if column.type == "integer":
        _integer(stripped)
        value += 0.0  # among integers there is no -0
    if not -_TOO_LARGE[column.element] < value < _TOO_LARGE[column.element]:
        raise FieldError("out_of_range", f"{shown(stripped)} is too large for {column.element}")
    return value


def _nearest_single(stripped: str) -> float:
    """The float32 next to the number as it is written: rounded once, not to float64 first, as every reader does it."""
    import numpy as np

    wide = float(stripped)
    (bits,) = _BITS.unpack(_DOUBLE.pack(wide))
    if bits & _REST != _HALF and abs(wide) > _SUBNORMAL:
        return wide
    if abs(wide) >= _TOO_LARGE["float32"]:
        below = Decimal(stripped).copy_abs() < Decimal(_TOO_LARGE["float32"])
        return math.copysign(_LARGEST, wide) if below else wide
    # Half-way between two float32 by now; was it before it became a float64?
    single = np.float32(wide)
    other = np.nextafter(single, np.float32(math.copysign(math.inf, wide - float(single))))
    if wide - float(single) != float(other) - wide or not np.isfinite(other):
        return wide
    exact, middle = Decimal(stripped), Decimal(wide)
    if exact == middle:
        return wide
    return float(max(single, other) if exact > middle else min(single, other))


def is_rounded_once(wide: Array, element: str) -> bool:
    """Whether these float64, as float() reads them, are the numbers as written in that type once they are cast."""
    import numpy as np

    sizes = np.abs(wide)
    # Not a number passes no comparison, and is no number as written.
    if not sizes.max(initial=0) < _TOO_LARGE[element]:
        return False
    if element != "float32":
        return True
    if ((wide.view(np.uint64) & np.uint64(_REST)) == _HALF).any():
        return False
    return bool(sizes.min(initial=1) > _SUBNORMAL or not ((sizes <= _SUBNORMAL) & (sizes > 0)).any())


def _fitting_integer(stripped: str, column: Column) -> int:
    value = _integer(stripped)
    lowest, highest = integer_limits(column.element)
    if not lowest <= value <= highest:
        raise FieldError("out_of_range", f"{shown(stripped)} is not in {lowest} to {highest} ({column.element})")
    return value


def _integer(stripped: str) -> int:
    try:
        number = Decimal(stripped)
    except InvalidOperation:  # an exponent beyond all bounds
        raise FieldError("out_of_range", f"{shown(stripped)} is too large or too small") from None
    if not number:
        return 0
    if number.adjusted() > DIGITS:
        raise FieldError("out_of_range", f"{shown(stripped)} is too large")
    if number.adjusted() < 0 or number != number.to_integral_value():
        raise FieldError("not_an_integer", f"{shown(stripped)} is not an integer")
    return int(number)


def shown(text: str) -> str:
    """A field's text, quoted and shortened, for a message."""
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


def not_utf8(error: UnicodeDecodeError) -> RowError:
    return RowError("invalid_utf8", f"byte {error.start} of the row is not UTF-8")


def too_short(column: Column, fields: int) -> RowError:
    there = "only 1 field" if fields == 1 else f"only {fields} fields" if fields else "no fields"
    return column.error("too_few_fields", f"the row has {there}")


@cache
def integer_limits(element: str) -> tuple[int, int]:
    """The least and the greatest integer between which every one is itself in the type."""
    import numpy as np

    if element.startswith("float"):
        return -_EXACT[element], _EXACT[element]
    if element == "bool":
        return 0, 1
    limits = np.iinfo(element)
    return int(limits.min), int(limits.max)


def dtype_of(element: str) -> np.dtype[Any]:
    """The numpy type of arrays for an ONNX input."""
    import numpy as np

    return np.dtype(object if element == "string" else element)
