"""One compute node: reads its units, many at a time, and writes their results and what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager, nullcontext
from threading import Semaphore
from typing import TYPE_CHECKING

from batch_pipeline.errors import InputFailed, NodeFailed, StorageFailed
from batch_pipeline.locations import source_name
from batch_pipeline.models.binding import Binding
from batch_pipeline.models.preprocessing import load
from batch_pipeline.node.ahead import read_ahead
from batch_pipeline.node.batching import BatchingEngine, BatchRule
from batch_pipeline.node.budget import ByteBudget
from batch_pipeline.node.csv_unit import CsvWork
from batch_pipeline.node.engine import Engine, OnnxEngine
from batch_pipeline.node.file_unit import FileWork
from batch_pipeline.node.job import NodeJob, Progress, Recorder, Unit, UnitError, UnitResult
from batch_pipeline.node.reading import Opened, Sources
from batch_pipeline.node.sample import Sample
from batch_pipeline.node.tally import Tally

if TYPE_CHECKING:
    from batch_pipeline.share_links import ShareLinkReader
    from batch_pipeline.storage import Storage

ROWS_A_BATCH = 4096
IMAGES_A_BATCH = 32
CSVS_AT_ONCE = 16
LARGE_CSVS_AT_ONCE = 4
"""A large one keeps all cores busy by itself; more of them would only hold more memory."""
SMALL_CSV = 8 * 2**20
FILES_AT_ONCE = 64
BYTES_AT_ONCE = 512 * 2**20
"""Of files that are read whole."""
LARGEST_FILE = 2 * 2**30
SAMPLED = 3
POLL_SECONDS = 0.25


class _Stopped(Exception):
    """The node was told to stop in the middle of a unit."""


def run_node(
    job: NodeJob,
    storage: Storage,
    share_links: ShareLinkReader,
    recorder: Recorder,
    on_progress: Callable[[Progress], None] = lambda _: None,
    stopping: Callable[[], bool] = lambda: False,
) -> tuple[Progress, tuple[dict[str, object], ...]]:
    """Goes through all units; returns how far it came and a few answers. A unit that fails is recorded as such.

    A unit is recorded once its result is durable. When `stopping` says so, what is in flight is given up and the
    rest left undone. Raises NodeFailed where the node cannot work at all: the model does not load, a provider is
    missing, a result cannot be written.
    """
    tally = Tally(job.unit_count, on_progress)
    with opened_work(job) as work, ThreadPoolExecutor(LARGE_CSVS_AT_ONCE, thread_name_prefix="read") as readers:
        node = _Node(work, Sources(storage, share_links), storage, recorder, tally, stopping, readers)
        at_once = CSVS_AT_ONCE if isinstance(work, CsvWork) else FILES_AT_ONCE
        with ThreadPoolExecutor(at_once, thread_name_prefix="unit") as workers:
            try:
                _feed(job, node, workers, tally, at_once)
            except BaseException:
                node.give_up()
                raise
    return tally.progress, work.sample.pairs


def _feed(job: NodeJob, node: _Node, workers: Executor, tally: Tally, at_once: int) -> None:
    """Keeps every worker busy with one unit and one more in waiting; raises what a worker raised."""
    running: set[Future[None]] = set()
    for unit in job.units:
        node.poll()
        if node.stopped:
            break
        running.add(workers.submit(node.process, unit))
        while len(running) >= 2 * at_once:
            running = _wait(running, node, tally)
    while running:
        running = _wait(running, node, tally)


def _wait(running: set[Future[None]], node: _Node, tally: Tally) -> set[Future[None]]:
    done, left = wait(running, timeout=POLL_SECONDS or None, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    node.poll()
    tally.say()
    return left


class _Node:
    """What every worker shares."""

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
        self._budget = ByteBudget(BYTES_AT_ONCE)
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
            self._given_up = self._given_up or self._stopping()

    def _check_stopped(self) -> None:
        if self.stopped:
            raise _Stopped

    def give_up(self) -> None:
        self._given_up = True

    def process(self, unit: Unit) -> None:
        """One unit from its source to its record."""
        if self.stopped:
            return
        outcome: UnitResult | UnitError
        try:
            outcome = self._csv(unit, self._work) if isinstance(self._work, CsvWork) else self._file(unit, self._work)
        except InputFailed as error:
            outcome = UnitError(unit.line, unit.digest, unit.part, error.code, error.message)
        except _Stopped:
            return
        self._recorder.record(outcome)
        self._tally.unit(outcome)

    def _csv(self, unit: Unit, work: CsvWork) -> UnitResult:
        if not source_name(unit.source).lower().endswith(".csv"):
            raise InputFailed(
                "not_csv", "this model takes rows of CSV files; the name of this file does not end in .csv"
            )
        with (
            self._sources.open_part(unit) as opened,
            self._large if opened.size > SMALL_CSV else nullcontext(),
            self._writing(unit) as write,
        ):
            size, rows, failed_rows = self._answer_rows(unit, work, opened, write)
        return UnitResult(unit.line, unit.digest, unit.part, opened.etag, size, rows, failed_rows)

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
            except (InputFailed, _Stopped):
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
        try:
            with self._storage.open_writer(unit.result) as writer:
                yield writer.write
        except StorageFailed as error:
            raise NodeFailed(f"a result could not be written: {error.message}") from error


@contextmanager
def opened_work(job: NodeJob, *, samples: int = SAMPLED, engine: Engine | None = None) -> Iterator[CsvWork | FileWork]:
    """The model, loaded, and the threads around it. Raises NodeFailed where it cannot be."""
    binding = job.binding
    outputs = [leaf.output for leaf in binding.response]
    if engine is None:
        engine = OnnxEngine(
            job.model_folder / job.model_file, threads=job.threads, providers=job.providers, outputs=outputs
        )
    with ExitStack() as stack:
        batching = stack.enter_context(BatchingEngine(engine, batch_rule(binding)))
        pool = stack.enter_context(ThreadPoolExecutor(job.threads + 1, thread_name_prefix="parse"))
        sample = Sample(samples)
        if binding.kind == "file":
            yield FileWork(binding, load(job.model_folder), batching, pool, sample)
        else:
            assert job.mapping is not None, "a JSON API has a mapping"
            yield CsvWork(binding, job.mapping, job.csv, job.join_input, batching, pool, sample)


def batch_rule(binding: Binding) -> BatchRule:
    """How this binding's rows go into calls of the model."""
    file = binding.file
    raw = file is not None and file.form == "bytes"
    whole = raw and file is not None and file.tensor.element != "string"
    ranks = {"scalar": None, "array": 2, "matrix": 3}
    ranked = {leaf.output: rank for leaf in binding.response if (rank := ranks.get(leaf.form)) is not None}
    return BatchRule(ROWS_A_BATCH if file is None else IMAGES_A_BATCH, binding.batch, whole, raw, ranked)
