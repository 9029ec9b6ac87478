"""The values of one ONNX output as JSON texts, one a row, vectorised. Conversions to the schema's type lose nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from batch_pipeline.models.binding import BasicType
from batch_pipeline.node.csv_fields import NUMBER

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, np.dtype[Any]]

_EXACT = 2**53


def texts_of(value: Any, wanted: BasicType | None) -> pl.Series:
    """`value`: an array whose first dimension is the rows, or a list of dicts."""
    import polars as pl

    if isinstance(value, list):
        return pl.Series("v", [_dumped(one, wanted) for one in value], dtype=pl.String)
    if value.dtype.name == "float16":
        value = value.astype("float32")
    if value.ndim == 1:
        return _scalars(value, wanted)
    if value.dtype.kind == "f" and wanted in (None, "number") and 0 not in value.shape:
        return _nested_floats(value)
    return pl.Series("v", [_dumped(one, wanted) for one in value], dtype=pl.String)


def _scalars(array: Array, wanted: BasicType | None) -> pl.Series:
    import numpy as np
    import polars as pl

    if array.dtype.kind in "OUS" or (wanted == "boolean" and array.dtype.kind != "b"):
        return pl.Series("v", [_dumped(one, wanted) for one in array], dtype=pl.String)
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        texts = _float_texts(array)
        if wanted == "integer":
            whole = finite & (np.abs(array) <= _EXACT) & (np.trunc(array) == array)
            integers = pl.Series(np.where(whole, array, 0).astype(np.int64)).cast(pl.String)
            texts = pl.select(pl.when(pl.Series(whole)).then(integers).otherwise(texts)).to_series()
    elif array.dtype.kind == "b":
        numbers = wanted in ("number", "integer")
        texts = pl.Series("v", array.astype(np.uint8) if numbers else array).cast(pl.String)
        finite = np.ones(len(array), dtype=bool)
    else:
        texts = pl.Series("v", array).cast(pl.String)
        finite = np.ones(len(array), dtype=bool)
    if wanted == "string":
        texts = '"' + texts + '"'
    if finite.all():
        return texts.alias("v")
    return pl.select(pl.when(pl.Series(finite)).then(texts).otherwise(pl.lit("null")).alias("v")).to_series()


def _float_texts(array: Array) -> pl.Series:
    """Shortest texts that read back as the same value of the same width."""
    import polars as pl

    return pl.Series("v", array).cast(pl.String)


def _nested_floats(array: Array) -> pl.Series:
    import numpy as np
    import polars as pl

    flat = pl.Series("v", np.ascontiguousarray(array).reshape(-1)).fill_nan(None)
    infinite = flat.is_infinite()
    if infinite.any():
        flat = flat.zip_with(~infinite, pl.Series("v", [None], dtype=flat.dtype).extend_constant(None, len(flat) - 1))
    nested = flat.reshape(array.shape)
    lines = pl.DataFrame([nested.alias("v")]).select(pl.struct("v").struct.json_encode()).to_series()
    return lines.str.strip_prefix('{"v":').str.strip_suffix("}")


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
