"""One pass over the input list: who is in it, under which name each result will stand, and a digest of it all.

Memory stays flat: the list is set aside on the local disk, and of each line one byte is kept, of each repeated one 16.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Self

from batch_pipeline.errors import InputMissing
from batch_pipeline.inputs import InputList
from batch_pipeline.layout import RESULT_SUFFIX
from batch_pipeline.naming import Names
from batch_pipeline.spill import Spill

if TYPE_CHECKING:
    import polars as pl

MARK_LINES = 1000
"""About so many lines are between two whose places in the manifest are written down."""

CSV_ENDINGS = [b"." + bytes(letters) for letters in product(b"cC", b"sS", b"vV")]


class Survey:
    """What one pass over the input list found. A context manager: what it holds on the disk is gone after the block.

    `digest` is the SHA-256 of the input list: what the service was made from. `size` is known for a folder alone.
    """

    def __init__(self, inputs: InputList) -> None:
        """Reads the whole input list once. Raises InputMissing where there is no input at all."""
        self._sized = not inputs.is_manifest
        self._spill = Spill()
        self._names = Names()
        self._blocks = 0
        self._marks: list[pl.DataFrame] = []
        self.inputs = self.bad_lines = self.repeated = 0
        self.size: int | None = 0 if self._sized else None
        try:
            self.digest = self._read(inputs)
            self.repeated = self._names.settle(self._spilled, self.digest)
        except BaseException:
            self._close()
            raise

    def _read(self, inputs: InputList) -> str:
        content = hashlib.sha256()
        for frame in inputs.columns():
            _add(content, frame)
            self._take(frame.drop("content"))
        if not self.inputs:
            raise nothing_there(inputs)
        return content.hexdigest()

    def _take(self, frame: pl.DataFrame) -> None:
        import polars as pl

        names = frame["name"].to_list()
        suffix = RESULT_SUFFIX.encode()
        results = [hashlib.sha256(name + suffix).digest()[:16] for name in names]
        frame = frame.with_columns(result=pl.Series(results, dtype=pl.Binary))
        self._names.add(frame)
        self._spill.add(frame.drop("same"), pl.lit(self._blocks))
        self._spill.seal()
        self._marks.append(frame.select("line", "offset").gather_every(MARK_LINES))
        self._blocks += 1
        self.inputs += frame.height
        self.bad_lines += int(frame["bad"].sum())
        if self.size is not None:
            self.size += int(frame["size"].sum())

    def _spilled(self) -> Iterator[pl.DataFrame]:
        for block in range(self._blocks):
            frame = self._spill.read(block)
            assert frame is not None
            yield frame

    @property
    def marks(self) -> pl.DataFrame:
        """Where some lines of the manifest begin, in bytes: columns line and offset."""
        import polars as pl

        return pl.concat(self._marks)

    def tables(self) -> Iterator[pl.DataFrame]:
        """One row an input, in order, some 100,000 at a time:

        line, digest (SHA-256 of the source), size and etag (None where unknown), duplicate_of (the line that lists
        the same source first), suffix (put into the result's name where another has it), result (digest of the
        result's name), bad (the line names no input), csv (its name ends in .csv).
        """
        import polars as pl

        unknown = {"size": pl.lit(None, pl.Int64), "etag": pl.lit(None, pl.String)}
        csv = pl.col("name").bin.slice(-4).is_in(CSV_ENDINGS)
        for frame in self._spilled():
            yield (
                self._names.named(frame)
                .with_columns(csv=csv, **({} if self._sized else unknown))
                .select("line", "digest", "size", "etag", "duplicate_of", "suffix", "result", "bad", "csv")
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        self._names.close()
        self._spill.close()


def list_digest(inputs: InputList) -> str:
    """The digest alone. Raises InputMissing where there is no input at all."""
    content = hashlib.sha256()
    found = False
    for frame in inputs.columns():
        _add(content, frame)
        found = True
    if not found:
        raise nothing_there(inputs)
    return content.hexdigest()


def nothing_there(inputs: InputList) -> InputMissing:
    what = "lists no input" if inputs.is_manifest else "holds no object"
    return InputMissing(f"input_path {inputs.location} {what}; there is nothing to infer on")


def _add(content: hashlib._Hash, frame: pl.DataFrame) -> None:
    pairs = zip(frame["line"].to_list(), frame["content"].to_list(), strict=True)
    content.update(b"".join([b"%d\0%d\0%s" % (line, len(text), text) for line, text in pairs]))
