"""One compute node: goes through its units, many at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from batch_pipeline.node.job import NodeJob, Progress, Recorder
from batch_pipeline.node.reading import Sources
from batch_pipeline.node.tally import Tally
from batch_pipeline.node.work import opened_work
from batch_pipeline.node.worker import LARGE_CSVS_AT_ONCE, POLL_SECONDS, Worker

if TYPE_CHECKING:
    from batch_pipeline.share_links import ShareLinkReader
    from batch_pipeline.storage import Storage

AT_ONCE = 64
"""Units. A request to a store is mostly waiting, so that small ones take many."""


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
    missing, a result cannot be written; and StorageFailed where the store is down or takes the credentials no more.
    """
    tally = Tally(job.unit_count, on_progress)
    with opened_work(job) as work, ThreadPoolExecutor(LARGE_CSVS_AT_ONCE, thread_name_prefix="read") as readers:
        node = Worker(work, Sources(storage, share_links), storage, recorder, tally, stopping, readers)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="unit") as workers:
            try:
                _feed(job, node, workers, tally)
            except BaseException:
                node.give_up()
                raise
    return tally.progress, work.sample.pairs


def _feed(job: NodeJob, node: Worker, workers: Executor, tally: Tally) -> None:
    """Keeps every worker busy with one unit and one more in waiting; raises what a worker raised."""
    finished: SimpleQueue[Future[None]] = SimpleQueue()
    running = 0
    for unit in job.units:
        node.poll()
        if node.stopped:
            break
        workers.submit(node.process, unit).add_done_callback(finished.put)
        running += 1
        while running >= 2 * AT_ONCE:
            running -= _taken(finished, node, tally)
    while running:
        running -= _taken(finished, node, tally)


def _taken(finished: SimpleQueue[Future[None]], node: Worker, tally: Tally) -> int:
    """Waits a little for one unit to finish; how many did."""
    try:
        finished.get(timeout=POLL_SECONDS).result()
        taken = 1
    except Empty:
        taken = 0
    node.poll()
    tally.say()
    return taken
