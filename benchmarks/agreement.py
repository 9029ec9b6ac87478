"""Whether both sides of a comparison answered the same."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import polars as pl


class Disagreement(Exception):
    """One side answered something else: its speed means nothing."""


def numbers(results: Mapping[str, bytes], column: str = "y") -> np.ndarray:
    """One column of the result lines of all files, in the order of their names."""
    tables = (pl.read_ndjson(io.BytesIO(results[name])) for name in sorted(results))
    return np.concatenate([table[column].to_numpy() for table in tables])


def same(ours: np.ndarray, other: np.ndarray, what: str) -> None:
    """Raises Disagreement. Batches of other sizes round the last digits of a float32 otherwise."""
    if ours.shape != other.shape or not np.allclose(ours, other, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise Disagreement(f"{what}: {ours[:3]}… of {ours.shape}, but {other[:3]}… of {other.shape}")
