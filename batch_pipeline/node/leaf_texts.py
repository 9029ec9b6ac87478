"""The values of one ONNX output as JSON texts, one a row, vectorised. Conversions to the schema's type lose nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from batch_pipeline.models.binding import BasicType
from batch_pipeline.node.csv_fields import NUMBER

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, np.dtype[Any]]

_EXACT = 2**53
_FEW = 256
"""Up to so many values plain Python is quicker than setting a vector in motion. The texts are the same."""
_ESCAPED = r'["\\\x00-\x1f]'


def texts_of(value: Any, wanted: BasicType | None) -> pl.Series:
    """`value`: an array whose first dimension is the rows, or a list of dicts or arrays."""
    import polars as pl

    if isinstance(value, list) or 0 in value.shape:
        return pl.Series("v", [_dumped(one, wanted) for one in value], dtype=pl.String)
    texts = _scalars(value.reshape(-1), wanted)
    for size in reversed(value.shape[1:]):
        texts = _in_brackets(texts, size)
    return texts


def joined(pieces: Sequence[pl.Series | str], rows: int) -> pl.Series:
    """One text a row: its pieces one after the other."""
    import polars as pl

    if rows <= _FEW:
        columns = [[piece] * rows if isinstance(piece, str) else piece.to_list() for piece in pieces]
        return pl.Series("v", ["".join(row) for row in zip(*columns, strict=True)], dtype=pl.String)
    if not any(isinstance(piece, pl.Series) for piece in pieces):
        return pl.Series("v", ["".join(map(str, pieces))] * rows)
    parts = [pl.lit(piece) if isinstance(piece, str) else piece for piece in pieces]
    return pl.select(pl.concat_str(parts).alias("v")).to_series()


def _in_brackets(texts: pl.Series, size: int) -> pl.Series:
    """Every `size` texts as one JSON array."""
    import polars as pl

    if len(texts) <= _FEW:
        values = texts.to_list()
        rows = ["[" + ",".join(values[at : at + size]) + "]" for at in range(0, len(values), size)]
        return pl.Series("v", rows, dtype=pl.String)
    return joined(["[", texts.reshape((-1, size)).arr.join(","), "]"], len(texts) // size)


def _scalars(array: Array, wanted: BasicType | None) -> pl.Series:
    import numpy as np
    import polars as pl

    if array.dtype.name == "float16":
        array = array.astype(np.float32)
    if array.dtype.kind in "OUS":
        return _strings(array, wanted)
    if wanted == "boolean" and array.dtype.kind != "b":
        return pl.Series("v", [_dumped(one, wanted) for one in array], dtype=pl.String)
    if array.dtype.kind == "b" and wanted in ("number", "integer"):
        array = array.astype(np.uint8)
    if len(array) <= _FEW and array.dtype.kind in "iuf" and wanted in (None, "number"):
        return pl.Series("v", _few_numbers(array), dtype=pl.String)
    texts = pl.Series("v", array).cast(pl.String)
    finite = np.isfinite(array)
    if array.dtype.kind == "f" and wanted == "integer":
        whole = finite & (np.abs(array) <= _EXACT) & (np.trunc(array) == array)
        integers = pl.Series("v", np.where(whole, array, 0).astype(np.int64)).cast(pl.String)
        texts = integers.zip_with(pl.Series(whole), texts)
    if wanted == "string":
        texts = joined(['"', texts, '"'], len(texts))
    return texts if finite.all() else texts.scatter(np.flatnonzero(~finite), "null")


def _few_numbers(array: Array) -> list[str]:
    """The texts that polars would give them; `null` for what is not finite."""
    import numpy as np
    import orjson

    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return orjson.dumps(native, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode().split(",")


def _strings(array: Array, wanted: BasicType | None) -> pl.Series:
    import polars as pl

    if len(array) > _FEW and wanted in (None, "string") and array.dtype.kind == "O" and isinstance(array[0], str):
        texts = pl.Series("v", array.tolist(), dtype=pl.String)
        if not texts.str.contains(_ESCAPED).any():
            return joined(['"', texts, '"'], len(texts))
    return pl.Series("v", [_dumped(one, wanted) for one in array], dtype=pl.String)


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
