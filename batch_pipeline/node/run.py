"""One compute node: goes through its units, many at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Event
from typing import TYPE_CHECKING

from batch_pipeline.node.allocator import keep_freed_memory
from batch_pipeline.node.job import NodeJob, Progress, Recorder, Unit
from batch_pipeline.node.reading import Sources
from batch_pipeline.node.tally import Tally
from batch_pipeline.node.work import opened_work
from batch_pipeline.node.worker import LARGE_CSVS_AT_ONCE, POLL_SECONDS, Worker

if TYPE_CHECKING:
    from batch_pipeline.share_links import ShareLinkReader
    from batch_pipeline.storage import Storage

AT_ONCE = 64
"""Units. A request to a store is mostly waiting, so that small ones take many."""
TOGETHER = 8
"""Small units that a worker takes in one go, where as many wait for each of the others."""
IN_WAITING = TOGETHER * AT_ONCE
"""So many are got out of the list before they are asked for: more of them are, once few are left."""


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
    keep_freed_memory()
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
    """Keeps units in waiting for every worker; raises what a worker raised."""
    crew = _Crew(node, workers, tally)
    try:
        for unit in job.units:
            crew.look_after()
            if node.stopped:
                break
            if unit is not None:
                crew.add(unit)
            while crew.has_enough and not node.stopped:
                crew.await_news()
    finally:
        crew.dismiss()
    while crew.is_at_work:
        crew.await_news()
    crew.look_after()


class _Crew:
    """Workers that help themselves to what waits. For the node's own thread.

    To hand each unit over, and to wait for its end, would cost a small one more than much of what is done with it.
    """

    def __init__(self, node: Worker, workers: Executor, tally: Tally) -> None:
        self._node, self._workers, self._tally = node, workers, tally
        self._waiting: SimpleQueue[Unit | None] = SimpleQueue()
        self._started = self._over = 0
        self._ended: list[Future[None]] = []
        self._news = Event()
        """Not many units are waiting, or a worker is at its end."""

    @property
    def has_enough(self) -> bool:
        return self._waiting.qsize() >= IN_WAITING

    @property
    def is_at_work(self) -> bool:
        return self._over + len(self._ended) < self._started

    def add(self, unit: Unit) -> None:
        self._waiting.put(unit)
        if self._started < AT_ONCE:
            self._started += 1
            self._workers.submit(self._work).add_done_callback(self._end)

    def dismiss(self) -> None:
        """Lets the workers come to their end, once nothing waits any more."""
        for _ in range(self._started):
            self._waiting.put(None)

    def await_news(self) -> None:
        self._news.wait(POLL_SECONDS)
        self._news.clear()
        self.look_after()

    def look_after(self) -> None:
        """Raises what a worker has failed with."""
        self._node.poll()
        self._tally.say()
        while self._ended:
            self._over += 1
            self._ended.pop().result()  # forgotten, as what it raises holds all that was under way

    def _work(self) -> None:
        while lots := self._next():
            for lot in lots:
                self._node.process(lot)
            if self._waiting.qsize() < IN_WAITING // 2 and not self._news.is_set():
                self._news.set()

    def _next(self) -> list[list[Unit]]:
        """What is to be done together, and what after it; nothing at the end."""
        lot: list[Unit] = []
        most = 1 + min(TOGETHER - 1, self._waiting.qsize() // AT_ONCE)
        while len(lot) < most:
            try:
                unit = self._waiting.get(block=not lot)
            except Empty:
                break
            if unit is None:
                if lot:
                    self._waiting.put(None)
                break
            if not self._node.goes_with_others(unit):
                return [lot, [unit]] if lot else [[unit]]
            lot.append(unit)
        return [lot] if lot else []

    def _end(self, worker: Future[None]) -> None:
        self._ended.append(worker)
        self._news.set()
