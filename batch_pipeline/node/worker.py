"""Units from their sources to their records, on whichever thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from threading import Semaphore
from typing import TYPE_CHECKING

from batch_pipeline.errors import InputFailed, NameTaken, NodeFailed, StorageFailed
from batch_pipeline.locations import ShareLink, source_name
from batch_pipeline.node.ahead import read_ahead
from batch_pipeline.node.batching import Stopped
from batch_pipeline.node.budget import ByteBudget
from batch_pipeline.node.csv_lines import Lines
from batch_pipeline.node.csv_unit import CsvWork
from batch_pipeline.node.file_unit import FileWork
from batch_pipeline.node.job import Recorder, Unit, UnitError, UnitResult
from batch_pipeline.node.reading import Opened, Sources
from batch_pipeline.node.tally import Tally

if TYPE_CHECKING:
    from batch_pipeline.storage import Storage

LARGE_CSVS_AT_ONCE = 4
"""A large one keeps all cores busy by itself; more of them would only hold more memory."""
SMALL_CSV = 8 * 2**20
TINY_CSV = 16 * 2**10
"""What is done with such a one takes longer than to read it and to write its result, if it is done for it alone."""
BYTES_AT_ONCE = 512 * 2**20
"""Of files that are read whole."""
CSV_BYTES_AT_ONCE = 128 * 2**20
UNKNOWN_CSV = 2**20
"""What a CSV counts for of which nobody knows the size."""
LARGEST_FILE = 2 * 2**30
POLL_SECONDS = 0.25


class Worker:
    """What the threads of a node share. Thread-safe, but for `poll`."""

    def __init__(
        self,
        work: CsvWork | FileWork,
        sources: Sources,
        storage: Storage,
        recorder: Recorder,
        tally: Tally,
        stopping: Callable[[], bool],
        readers: Executor,
    ) -> None:
        self._work = work
        self._sources = sources
        self._storage = storage
        self._recorder = recorder
        self._tally = tally
        self._stopping = stopping
        self._given_up = False
        self._asked = 0.0
        self._tiny = False
        """Whether the CSV was tiny that was worked on alone last."""
        self._budget = ByteBudget(BYTES_AT_ONCE)
        self._csv_budget = ByteBudget(CSV_BYTES_AT_ONCE)
        self._large = Semaphore(LARGE_CSVS_AT_ONCE)
        self._readers = readers

    @property
    def stopped(self) -> bool:
        return self._given_up

    def poll(self) -> None:
        """Asks whether to stop, if that was not asked just now. For the node's own thread alone."""
        now = time.monotonic()
        if now - self._asked >= POLL_SECONDS:
            self._asked = now
            if not self._given_up and self._stopping():
                self.give_up()

    def _check_stopped(self) -> None:
        if self.stopped:
            raise Stopped

    def give_up(self) -> None:
        self._given_up = True
        self._work.engine.stop()

    def goes_with_others(self, unit: Unit) -> bool:
        """Whether it is worth while to have others answered with it: a tiny CSV. Of a manifest's objects nobody knows
        the sizes; they are taken to be as the last one was that was worked on alone.
        """
        if not isinstance(self._work, CsvWork) or unit.parts > 1 or isinstance(unit.source, ShareLink):
            return False
        return self._tiny if unit.size is None else unit.size <= TINY_CSV

    def process(self, units: Sequence[Unit]) -> None:
        """From their sources to their records: several as one, where all go with others."""
        try:
            if len(units) > 1 and isinstance(self._work, CsvWork):
                self._together(units, self._work)
            else:
                for unit in units:
                    self._alone(unit)
        except Stopped:
            return

    def _alone(self, unit: Unit) -> None:
        self._check_stopped()
        try:
            _check_result(unit)
            done = self._csv(unit, self._work) if isinstance(self._work, CsvWork) else self._file(unit, self._work)
        except InputFailed as error:
            self._fail(unit, error)
        else:
            self._record(done)

    def _together(self, units: Sequence[Unit], work: CsvWork) -> None:
        read: list[tuple[Unit, str]] = []
        texts: list[bytes] = []
        for unit in units:
            try:
                _check_result(unit)
                _check_name(unit)
                with self._sources.open(unit) as opened:
                    if opened.size > TINY_CSV:
                        self._record(self._csv_opened(unit, work, opened))
                        continue
                    texts.append(b"".join(self._counted(opened.chunks)))
            except InputFailed as error:
                self._fail(unit, error)
            else:
                read.append((unit, opened.etag))
        for (unit, etag), found in zip(read, work.lines_of(texts), strict=True):
            if isinstance(found, InputFailed):
                self._fail(unit, found)
            else:
                self._write_lines(unit, etag, found)

    def _write_lines(self, unit: Unit, etag: str, lines: Lines) -> None:
        self._check_stopped()
        try:
            with _result_errors():
                self._storage.write(unit.result, lines.text)
        except InputFailed as error:
            self._fail(unit, error)
            return
        self._tally.count(rows=lines.rows, failed_rows=lines.failed_rows)
        size = len(lines.text)
        self._record(UnitResult(unit.line, unit.digest, unit.part, etag, size, lines.rows, lines.failed_rows))

    def _fail(self, unit: Unit, error: InputFailed) -> None:
        self._record(UnitError(unit.line, unit.digest, unit.part, error.code, error.message))

    def _record(self, outcome: UnitResult | UnitError) -> None:
        self._recorder.record(outcome)
        self._tally.unit(outcome)

    def _csv(self, unit: Unit, work: CsvWork) -> UnitResult:
        _check_name(unit)
        size = UNKNOWN_CSV if unit.size is None else min(unit.size, SMALL_CSV)
        with self._room_for(unit.size), self._csv_budget.holding(size), self._sources.open_part(unit) as opened:
            return self._csv_opened(unit, work, opened)

    def _csv_opened(self, unit: Unit, work: CsvWork, opened: Opened) -> UnitResult:
        self._tiny = opened.size <= TINY_CSV
        with (
            self._room_for(opened.size if unit.size is None else None),  # of a manifest's object nobody knew it before
            self._writing(unit) as write,
        ):
            size, rows, failed_rows = self._answer_rows(unit, work, opened, write)
        return UnitResult(unit.line, unit.digest, unit.part, opened.etag, size, rows, failed_rows)

    def _room_for(self, size: int | None) -> AbstractContextManager[object]:
        """Waits until so large a CSV may be worked on: while it does, nothing of it is held."""
        return self._large if (size or 0) > SMALL_CSV else nullcontext()

    def _answer_rows(
        self, unit: Unit, work: CsvWork, opened: Opened, write: Callable[[bytes], object]
    ) -> tuple[int, int, int]:
        """(bytes written, rows, failed rows). Rows of a unit that fails after all are not counted."""
        size = rows = failed_rows = 0
        with closing(self._chunks(opened)) as chunks:
            try:
                for block in work.lines(
                    chunks, start=unit.start, end=unit.end, header=lambda: self._sources.header(unit)
                ):
                    self._check_stopped()
                    write(block.text)
                    size, rows, failed_rows = size + len(block.text), rows + block.rows, failed_rows + block.failed_rows
                    self._tally.count(rows=block.rows, failed_rows=block.failed_rows)
            except (InputFailed, Stopped):
                self._tally.count(rows=-rows, failed_rows=-failed_rows)
                raise
        return size, rows, failed_rows

    def _chunks(self, opened: Opened) -> Generator[bytes]:
        chunks = self._counted(opened.chunks)
        return read_ahead(chunks, self._readers) if opened.size > SMALL_CSV else chunks

    def _file(self, unit: Unit, work: FileWork) -> UnitResult:
        with self._sources.open(unit) as opened:
            if opened.size > LARGEST_FILE:
                raise InputFailed("too_large", f"the file has {opened.size} bytes, at most {LARGEST_FILE} are taken")
            with self._budget.holding(opened.size):
                line = work.line(b"".join(self._counted(opened.chunks)))
        with self._writing(unit) as write:
            write(line)
        return UnitResult(unit.line, unit.digest, unit.part, opened.etag, len(line))

    def _counted(self, chunks: Iterator[bytes]) -> Generator[bytes]:
        for chunk in chunks:
            self._check_stopped()
            self._tally.count(read=len(chunk))
            yield chunk

    @contextmanager
    def _writing(self, unit: Unit) -> Iterator[Callable[[bytes], object]]:
        """Writes the unit's result, which is there once this is left without an exception, and otherwise is not."""
        with _result_errors(), self._storage.open_writer(unit.result) as writer:
            yield writer.write


@contextmanager
def _result_errors() -> Iterator[None]:
    try:
        yield
    except NameTaken as error:
        raise error.of_result from error
    except StorageFailed as error:
        raise NodeFailed(f"a result could not be written: {error.message}", transient=error.transient) from error


def _check_result(unit: Unit) -> None:
    if unit.result.unusable is not None:
        code, reason = unit.result.unusable
        raise InputFailed(code, f"its result cannot be written: {reason}")


def _check_name(unit: Unit) -> None:
    if not source_name(unit.source).lower().endswith(".csv"):
        raise InputFailed("not_csv", "this model takes rows of CSV files; the name of this file does not end in .csv")
