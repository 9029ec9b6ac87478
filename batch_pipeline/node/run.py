"""One compute node: goes through its units, many at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from batch_pipeline.node.csv_unit import CsvWork
from batch_pipeline.node.job import NodeJob, Progress, Recorder
from batch_pipeline.node.reading import Sources
from batch_pipeline.node.tally import Tally
from batch_pipeline.node.work import opened_work
from batch_pipeline.node.worker import LARGE_CSVS_AT_ONCE, POLL_SECONDS, Worker

if TYPE_CHECKING:
    from batch_pipeline.share_links import ShareLinkReader
    from batch_pipeline.storage import Storage

CSVS_AT_ONCE = 16
FILES_AT_ONCE = 64


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
        node = Worker(work, Sources(storage, share_links), storage, recorder, tally, stopping, readers)
        at_once = CSVS_AT_ONCE if isinstance(work, CsvWork) else FILES_AT_ONCE
        with ThreadPoolExecutor(at_once, thread_name_prefix="unit") as workers:
            try:
                _feed(job, node, workers, tally, at_once)
            except BaseException:
                node.give_up()
                raise
    return tally.progress, work.sample.pairs


def _feed(job: NodeJob, node: Worker, workers: Executor, tally: Tally, at_once: int) -> None:
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


def _wait(running: set[Future[None]], node: Worker, tally: Tally) -> set[Future[None]]:
    done, left = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    node.poll()
    tally.say()
    return left
