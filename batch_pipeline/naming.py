"""Gives each source its result's name, so that two different sources never share one: by columns, in flat memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from batch_pipeline.layout import RESULT_SUFFIX
from batch_pipeline.spill import Spill

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

PARTS = 64
HEX = 8
"""Hex digits of the source's digest that a suffix begins with, and by which it grows while it is taken."""
_REPEATED = 255
"""In the place of a level: this line repeats a source."""


class Names:
    """Frames of lines go in, in order; then `settle`; then `named` says each line's name.

    Every source proposes its file name, then that with 8 hex digits of its digest, then with 16, and so on (its
    level). Of those that propose a name the first in the list has it, and the others go on to their next: that ends
    as if the sources had come one by one and each taken its first free name. After all of its digest a source proposes
    the digest of that and of the whole list, by which no name in the list can have been chosen.
    """

    def __init__(self) -> None:
        self._sources = Spill()
        self._proposals = Spill()
        self._lines = 0
        self._list = b""
        self._level: NDArray[np.uint8]
        self._repeats: pl.DataFrame

    def add(self, frame: pl.DataFrame) -> None:
        import polars as pl

        sources = frame.filter(~pl.col("bad"))
        self._lines = int(frame["line"][-1])
        self._sources.add(sources.select("line", same=pl.col("same").bin.slice(0, 16)), _part("same"))
        self._propose(sources.select("line", "result", level=pl.lit(0, pl.UInt8)))

    def settle(self, frames: Callable[[], Iterator[pl.DataFrame]], list_digest: str) -> int:
        """Decides on all names; returns how many lines repeat a source. `frames` gives what was added once more."""
        import numpy as np
        import polars as pl

        self._list = list_digest.encode()
        self._level = np.zeros(self._lines + 1, np.uint8)
        found = [_repeats(some) for part in range(PARTS) if (some := self._sources.read(part)) is not None]
        self._sources.close()
        empty = pl.DataFrame(schema={"line": pl.UInt64, "duplicate_of": pl.UInt64})
        self._repeats = pl.concat([empty, *found]).sort("line")
        self._level[self._repeats["line"].to_numpy()] = _REPEATED
        touched = set(range(PARTS))
        while (refused := self._refused(touched)).len():
            touched = set()
            for frame in frames():
                touched |= self._propose(self._next(frame, refused))
        self._proposals.close()
        self._level[self._repeats["line"].to_numpy()] = self._level[self._repeats["duplicate_of"].to_numpy()]
        return self._repeats.height

    def close(self) -> None:
        self._sources.close()
        self._proposals.close()

    def named(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame with duplicate_of, suffix, and result as it is in the end."""
        import polars as pl

        level = pl.Series(self._level[frame["line"].to_numpy()])
        first, last = frame["line"][0], frame["line"][-1]
        repeats = self._repeats.filter(pl.col("line").is_between(first, last))
        named = frame.join(repeats, on="line", how="left", maintain_order="left")
        if not level.max():
            return named.with_columns(suffix=pl.lit(""), result=pl.when(~pl.col("bad")).then("result").otherwise(b""))
        suffixes = self._suffixes(frame["key"].to_list(), level.to_list())
        results = [
            b"" if bad else _result(name, suffix) if suffix else result
            for name, suffix, result, bad in zip(
                frame["name"].to_list(), suffixes, frame["result"].to_list(), frame["bad"].to_list(), strict=True
            )
        ]
        return named.with_columns(suffix=pl.Series(suffixes), result=pl.Series(results, dtype=pl.Binary))

    def _propose(self, proposals: pl.DataFrame) -> set[int]:
        """The partitions that have new proposals."""
        return self._proposals.add(proposals, _part("result"))

    def _refused(self, parts: set[int]) -> pl.Series:
        """The lines, in order, that do not get the name they proposed last; their level rises."""
        import polars as pl

        refused = [pl.Series("line", [], pl.UInt64)]
        for part in sorted(parts):
            proposals = self._proposals.read(part)
            if proposals is None:
                continue
            still = pl.Series(self._level[proposals["line"].to_numpy()]) == proposals["level"]
            standing = proposals.filter(still)
            if standing["result"].n_unique() < standing.height:
                others = standing.filter(pl.col("line") != pl.col("line").min().over("result"))
                refused.append(others["line"])
        lines = pl.concat(refused).sort()
        self._level[lines.to_numpy()] += 1
        return lines

    def _next(self, frame: pl.DataFrame, refused: pl.Series) -> pl.DataFrame:
        import polars as pl

        within = refused.filter(refused.is_between(frame["line"][0], frame["line"][-1]))
        lines = frame.filter(pl.col("line").is_in(within.implode()))
        level = pl.Series(self._level[lines["line"].to_numpy()])
        suffixes = self._suffixes(lines["key"].to_list(), level.to_list())
        results = [_result(name, suffix) for name, suffix in zip(lines["name"].to_list(), suffixes, strict=True)]
        return lines.select("line", result=pl.Series(results, dtype=pl.Binary), level=level)

    def _suffixes(self, keys: list[bytes], levels: list[int]) -> list[str]:
        return [self._suffix(key, level) if level else "" for key, level in zip(keys, levels, strict=True)]

    def _suffix(self, key: bytes, level: int) -> str:
        digits = HEX * level
        own = key.hex()
        return "-" + (own[:digits] if digits <= len(own) else hashlib.sha256(self._list + key).hexdigest())


def _part(column: str) -> pl.Expr:
    import polars as pl

    return pl.col(column).bin.slice(0, 1).bin.reinterpret(dtype=pl.UInt8) % PARTS


def _repeats(sources: pl.DataFrame) -> pl.DataFrame:
    """The lines whose source stands in an earlier one, however spelt, with the first that has it."""
    import polars as pl

    if sources["same"].n_unique() == sources.height:
        return pl.DataFrame(schema={"line": pl.UInt64, "duplicate_of": pl.UInt64})
    first = sources.with_columns(duplicate_of=pl.col("line").min().over("same"))
    return first.filter(pl.col("line") != pl.col("duplicate_of")).select("line", "duplicate_of")


def _result(name: bytes, suffix: str) -> bytes:
    return hashlib.sha256(name + suffix.encode() + RESULT_SUFFIX.encode()).digest()[:16]
