"""One CSV, or one part of a divided one: its blocks through parser and engine to the lines of its result."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batch_pipeline.errors import InputFailed
from batch_pipeline.models.binding import Binding
from batch_pipeline.models.mapping import ColumnMapping
from batch_pipeline.node import csv_blocks, csv_rows
from batch_pipeline.node.batching import Answered, BatchingEngine
from batch_pipeline.node.csv_fields import TensorColumns, split_row
from batch_pipeline.node.csv_lines import Lines, joined_lines, result_lines
from batch_pipeline.node.sample import Sample

if TYPE_CHECKING:
    from batch_pipeline.parameters import CsvOptions

AHEAD = 2
"""Blocks of one CSV that are being parsed or inferred while an earlier one is written."""


@dataclass(frozen=True)
class CsvWork:
    """What turns CSVs of one job into answers. Thread-safe."""

    binding: Binding
    mapping: ColumnMapping
    csv: CsvOptions
    join_input: bool
    engine: BatchingEngine
    parsers: Executor
    sample: Sample
    _known: dict[tuple[str, ...], tuple[ColumnMapping, tuple[TensorColumns, ...]]] = field(default_factory=dict)

    def lines(
        self,
        chunks: Iterable[bytes],
        *,
        start: int = 0,
        end: int | None = None,
        header: Callable[[], bytes] | None = None,
        block_bytes: int = csv_blocks.BLOCK_BYTES,
    ) -> Iterator[Lines]:
        """The result's lines, block by block, for the rows whose first byte lies in [start, end).

        `chunks` begin at byte `max(0, start - 1)`; `header` gives the file's first line where `start` is not 0.
        Raises InputFailed.
        """
        blocks = self._blocks(chunks, start, end, block_bytes)
        names: list[str] | None = None
        if self.csv.header:
            first = b""
            if start == 0:
                blocks, first = self._without_header(blocks)
            elif header is not None and self._needs_names:
                first = header()
            names = _header_names(first)
        mapping, tensors = self._columns(tuple(names or ()))

        def finished(block: bytes, parsing: Future[tuple[csv_rows.Rows, Future[Answered]]]) -> Lines:
            return self._finished(block, *parsing.result(), mapping, names)

        waiting: deque[tuple[bytes, Future[tuple[csv_rows.Rows, Future[Answered]]]]] = deque()
        for block in blocks:
            waiting.append((block, self._parsing(block, tensors)))
            if len(waiting) > AHEAD:
                yield finished(*waiting.popleft())
        while waiting:
            yield finished(*waiting.popleft())

    def lines_of(self, files: Sequence[bytes]) -> list[Lines | InputFailed]:
        """The lines of whole small files, or what is wrong with one: those of one header are read and answered as one.

        One of which the rows can't be told from those of the next goes by itself.
        """
        found: dict[int, Lines | InputFailed] = {}
        alike: dict[bytes, list[int]] = {}
        bodies: dict[int, bytes] = {}
        for number, file in enumerate(files):
            first, body = csv_blocks.first_row(file, multiline=False) if self.csv.header else (b"", file)
            ended = _with_end(body, first, multiline=self.csv.multiline)
            if ended is None:
                found[number] = self._alone(file)
            else:
                alike.setdefault(csv_blocks.without_line_end(first), []).append(number)
                bodies[number] = ended
        for first, numbers in alike.items():
            found.update(zip(numbers, self._together(first, [bodies[number] for number in numbers]), strict=True))
        return [found[number] for number in range(len(files))]

    def _alone(self, file: bytes) -> Lines | InputFailed:
        try:
            return joined_lines(self.lines([file]))
        except InputFailed as error:
            return error

    def _together(self, first: bytes, bodies: Sequence[bytes]) -> Sequence[Lines | InputFailed]:
        try:
            names = _header_names(first) if self.csv.header else None
            mapping, tensors = self._columns(tuple(names or ()))
            counts = [body.count(b"\n") for body in bodies]
            if not any(counts):
                return [Lines(b"", 0) for _ in bodies]
            block = b"".join(bodies)
            lines = self._finished(block, *self._submit(block, tensors), mapping, names)
        except InputFailed as error:
            return [error] * len(bodies)
        return list(lines.cut(counts))

    def _columns(self, header: tuple[str, ...]) -> tuple[ColumnMapping, tuple[TensorColumns, ...]]:
        """Which columns go where in a file with this header; files of one header follow one another."""
        known = self._known.get(header)
        if known is None:
            mapping = self.mapping.resolve(header)
            known = mapping, csv_rows.tensor_columns(self.binding, mapping, self.csv)
            self._known.clear()
            self._known[header] = known
        return known

    @property
    def _needs_names(self) -> bool:
        return self.join_input or any(leaf.column is not None for leaf in self.mapping.leaves)

    def _blocks(self, chunks: Iterable[bytes], start: int, end: int | None, block_bytes: int) -> Iterator[bytes]:
        part = csv_blocks.part_of(chunks, start, end)
        if start == 0:
            part = csv_blocks.without_bom(part)
        return csv_blocks.blocks(part, multiline=self.csv.multiline, block_bytes=block_bytes)

    def _without_header(self, blocks: Iterator[bytes]) -> tuple[Iterator[bytes], bytes]:
        block = next(blocks, b"")
        first, rest = csv_blocks.first_row(block, multiline=self.csv.multiline)
        return (itertools.chain([rest], blocks) if rest else blocks), first

    def _parsing(
        self, block: bytes, tensors: tuple[TensorColumns, ...]
    ) -> Future[tuple[csv_rows.Rows, Future[Answered]]]:
        if len(block) > csv_rows.SMALL_BLOCK:
            return self.parsers.submit(self._submit, block, tensors)
        # Done sooner than handed over.
        parsed: Future[tuple[csv_rows.Rows, Future[Answered]]] = Future()
        parsed.set_result(self._submit(block, tensors))
        return parsed

    def _submit(self, block: bytes, tensors: tuple[TensorColumns, ...]) -> tuple[csv_rows.Rows, Future[Answered]]:
        rows = csv_rows.parse(block, tensors, multiline=self.csv.multiline)
        return rows, self.engine.submit(rows.inputs, rows.count - len(rows.errors))

    def _finished(
        self,
        block: bytes,
        rows: csv_rows.Rows,
        answering: Future[Answered],
        mapping: ColumnMapping,
        names: list[str] | None,
    ) -> Lines:
        raw = csv_rows.raw_rows(block, multiline=self.csv.multiline) if self.join_input else None
        lines = result_lines(self.binding, rows, answering.result(), raw, names)
        if self.sample.wanted:
            few = csv_rows.raw_rows(
                csv_blocks.first_rows(block, self.sample.most, multiline=self.csv.multiline),
                multiline=self.csv.multiline,
                fields=1 + max((leaf.index or 0 for leaf in mapping.leaves), default=0),
            )
            self.sample.add_rows(few, mapping, lines.text)
        return lines


def _header_names(line: bytes) -> list[str]:
    try:
        text = csv_blocks.without_line_end(line).removeprefix(csv_blocks.BOM).decode()
    except UnicodeDecodeError as error:
        raise InputFailed("invalid_header", f"the header line is not UTF-8 at byte {error.start}") from error
    return split_row(text)


def _with_end(body: bytes, first: bytes, *, multiline: bool) -> bytes | None:
    """The body with an end to its last row; None where that could change what a row is, or the file needs a look."""
    start = first or body
    if start.startswith((csv_blocks.BOM, csv_blocks.GZIP)) or body.startswith(csv_blocks.BOM):
        return None
    if multiline and (b'"' in body or b'"' in first):
        return None
    if not body or body.endswith(b"\n"):
        return body
    return None if body.endswith(b"\r") else body + b"\n"
