"""Rows set aside on the local disk in partitions, so that memory stays flat however many there are."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import polars as pl

PART_ROWS = 1 << 16
"""About so many rows are meant to be in a partition: what is held at a time."""
MOST_PARTS = 128
"""Each partition is an open file."""


class Spill:
    """Frames of one schema, divided into partitions and read back partition by partition, in the order they came."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="batch-pipeline-")))
        self._writers: dict[int, Any] = {}
        self._files: dict[int, list[Path]] = {}

    def add(self, frame: pl.DataFrame, part: pl.Expr) -> set[int]:
        """Sets the rows aside, each in the partition that `part` says. Returns the partitions that got some."""
        if frame.is_empty():
            return set()
        named = frame.with_columns(part.alias("_part"))
        parts = named.partition_by("_part", as_dict=True, include_key=False, maintain_order=True)
        for (number,), rows in parts.items():
            self._append(int(number), rows)
        return {int(number) for (number,) in parts}

    def read(self, part: int) -> pl.DataFrame | None:
        """All rows of a partition; None where it has none."""
        import polars as pl
        import pyarrow as pa

        self._close(part)
        frames = []
        for path in self._files.get(part, ()):
            with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
                frames.append(pl.from_arrow(stream.read_all()))
        return pl.concat([frame for frame in frames if isinstance(frame, pl.DataFrame)]) if frames else None

    def seal(self) -> None:
        """Closes every partition's file, as they may be more than can be open; what comes later opens another."""
        for part in list(self._writers):
            self._close(part)

    def close(self) -> None:
        self._stack.close()

    def _append(self, part: int, frame: pl.DataFrame) -> None:
        import pyarrow as pa

        table = frame.to_arrow()
        if part not in self._writers:
            files = self._files.setdefault(part, [])
            path = self._folder / f"{part}-{len(files)}"
            files.append(path)
            self._writers[part] = self._stack.enter_context(pa.ipc.new_stream(str(path), table.schema))
        self._writers[part].write_table(table)

    def _close(self, part: int) -> None:
        writer = self._writers.pop(part, None)
        if writer is not None:
            writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def parts_for(rows: int) -> int:
    """How many partitions so many rows take."""
    return max(1, min(MOST_PARTS, -(-rows // PART_ROWS)))
