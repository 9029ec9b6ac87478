"""The values of one ONNX output as JSON texts, one a row, vectorised. Conversions to the schema's type lose nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from batch_pipeline.models.binding import BasicType
from batch_pipeline.node.csv_fields import NUMBER

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, np.dtype[Any]]

Texts: TypeAlias = "list[str] | pl.Series"
"""One text a row: a list of a few, a vector of many."""

_EXACT = 2**53
_FEW = 256
"""Up to so many values plain Python is quicker than setting a vector in motion. The texts are the same."""
_ESCAPED = r'["\\\x00-\x1f]'


def texts_of(value: Any, wanted: BasicType | None) -> Texts:
    """`value`: an array whose first dimension is the rows, or a list of dicts or arrays."""
    if isinstance(value, list) and wanted in (None, "number") and _are_alike(value):
        return _maps(value)
    if isinstance(value, list) or 0 in value.shape:
        return [_dumped(one, wanted) for one in value]
    texts = _scalars(value.reshape(-1), wanted)
    for size in reversed(value.shape[1:]):
        texts = _in_brackets(texts, size)
    return texts


def joined(pieces: Sequence[Texts | str], rows: int) -> Texts:
    """One text a row: its pieces one after the other."""
    import polars as pl

    if rows <= _FEW:
        columns = [[piece] * rows if isinstance(piece, str) else listed(piece) for piece in pieces]
        return ["".join(row) for row in zip(*columns, strict=True)]
    if all(isinstance(piece, str) for piece in pieces):
        return ["".join(map(str, pieces))] * rows
    parts = [pl.lit(piece) if isinstance(piece, str) else vector(piece) for piece in pieces]
    return pl.select(pl.concat_str(parts).alias("v")).to_series()


def listed(texts: Texts) -> list[str]:
    return texts if isinstance(texts, list) else texts.to_list()


def vector(texts: Texts) -> pl.Series:
    import polars as pl

    return pl.Series("v", texts, dtype=pl.String) if isinstance(texts, list) else texts


def _are_alike(rows: list[Any]) -> bool:
    """Whether these are maps with the same keys, one at least, and with numbers for values: what a ZipMap gives."""
    if not rows or not isinstance(rows[0], dict) or not rows[0]:
        return False
    keys = list(rows[0])
    # A node makes all its maps in one order; another is no fault, but takes the longer way.
    return all(list(row) == keys for row in rows) and all(type(value) is float for value in rows[0].values())


def _maps(rows: list[dict[Any, float]]) -> Texts:
    import numpy as np

    keys = list(rows[0])
    values = np.fromiter(chain.from_iterable(row.values() for row in rows), np.float64, len(rows) * len(keys))
    return map_texts([str(key) for key in keys], values.reshape(len(rows), len(keys)))


def map_texts(keys: Sequence[str], table: Array) -> Texts:
    """Rows of numbers as objects with these keys. The numbers are written as Python's floats, as they are in maps."""
    import numpy as np
    import orjson

    pieces: list[Texts | str] = []
    for place, key in enumerate(keys):
        pieces.append(f"{',' if place else '{'}{orjson.dumps(key).decode()}:")
        pieces.append(_scalars(np.ascontiguousarray(table[:, place], np.float64), None))
    return joined([*pieces, "}"], len(table))


def _in_brackets(texts: Texts, size: int) -> Texts:
    """Every `size` texts as one JSON array."""
    if len(texts) <= _FEW:
        values = listed(texts)
        return ["[" + ",".join(values[at : at + size]) + "]" for at in range(0, len(values), size)]
    return joined(["[", vector(texts).reshape((-1, size)).arr.join(","), "]"], len(texts) // size)


def _scalars(array: Array, wanted: BasicType | None) -> Texts:
    import numpy as np
    import polars as pl

    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.dtype.kind in "OUS":
        return _strings(array, wanted)
    if wanted == "boolean" and array.dtype.kind != "b":
        return [_dumped(one, wanted) for one in array]
    if array.dtype.kind == "b" and wanted in ("number", "integer"):
        array = array.astype(np.uint8)
    if len(array) <= _FEW and array.dtype.kind in "iuf" and wanted in (None, "number"):
        return _few_numbers(array)
    texts = pl.Series("v", array).cast(pl.String)
    finite = np.isfinite(array)
    if array.dtype.kind == "f" and wanted == "integer":
        whole = finite & (np.abs(array) <= _EXACT) & (np.trunc(array) == array)
        integers = pl.Series("v", np.where(whole, array, 0).astype(np.int64)).cast(pl.String)
        texts = integers.zip_with(pl.Series(whole), texts)
    if wanted == "string":
        texts = vector(joined(['"', texts, '"'], len(texts)))
    return texts if finite.all() else texts.scatter(np.flatnonzero(~finite), "null")


def _few_numbers(array: Array) -> list[str]:
    """The texts that polars would give them; `null` for what is not finite."""
    import numpy as np
    import orjson

    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return orjson.dumps(native, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode().split(",")


def _strings(array: Array, wanted: BasicType | None) -> Texts:
    import polars as pl

    if len(array) > _FEW and wanted in (None, "string") and array.dtype.kind == "O" and isinstance(array[0], str):
        texts = pl.Series("v", array.tolist(), dtype=pl.String)
        if not texts.str.contains(_ESCAPED).any():
            return joined(['"', texts, '"'], len(texts))
    return [_dumped(one, wanted) for one in array]


def _dumped(value: Any, wanted: BasicType | None) -> str:
    import orjson

    option = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    return orjson.dumps(_converted(value, wanted), option=option).decode()


def _converted(value: Any, wanted: BasicType | None) -> Any:
    """The value (arrays and maps element by element) as plain data of the wanted type, where that loses nothing."""
    import numpy as np

    if isinstance(value, dict):
        return {str(key): _converted(one, wanted) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and wanted in (None, "number"):
            return np.ascontiguousarray(value) if value.dtype.isnative else value.tolist()
        return [_converted(one, wanted) for one in value]
    plain = value.item() if isinstance(value, np.generic) and value.dtype.kind != "f" else value
    if isinstance(plain, bytes):
        plain = plain.decode(errors="replace")
    return plain if wanted is None else _CONVERSIONS[wanted](plain)


def _to_string(value: Any) -> Any:
    import orjson

    if isinstance(value, str):
        return value
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return None if text == "null" else text


def _to_number(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and NUMBER.fullmatch(value) and math.isfinite(number := float(value)):
        return int(number) if number.is_integer() and abs(number) <= _EXACT else number
    return value


def _to_integer(value: Any) -> Any:
    number = _to_number(value)
    if isinstance(number, int):
        return number
    if isinstance(number, str) or not float(number).is_integer() or abs(number) > _EXACT:
        return number if not isinstance(value, str) else value
    return int(number)


def _to_boolean(value: Any) -> Any:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower(), value)
    return bool(value) if value in (0, 1) else value


_CONVERSIONS = {"string": _to_string, "number": _to_number, "integer": _to_integer, "boolean": _to_boolean}
