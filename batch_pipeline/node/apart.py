"""A node's units in a process of its own, after one died at them: what kills it is found, and left out."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Self

from batch_pipeline.errors import NodeFailed, OwnershipLost, StorageFailed
from batch_pipeline.node.job import NodeJob, Progress, Recorder, Unit, UnitError, UnitResult
from batch_pipeline.node.run import AT_ONCE, run_node
from batch_pipeline.node.tally import Tally
from batch_pipeline.node.time_limit import STUCK
from batch_pipeline.node.work import SAMPLED
from batch_pipeline.node.worker import POLL_SECONDS

if TYPE_CHECKING:
    from batch_pipeline.share_links import ShareLinkReader
    from batch_pipeline.storage import Storage

HOPELESS = 20
"""Where so many inputs kill the process one after the other, it is not for them that it dies."""
PR_SET_PDEATHSIG = 1
"""Of Linux."""
END_SECONDS = 30.0
"""So long a process may take to end that was told to, as what it works on is no longer wanted."""

_log = logging.getLogger(__name__)

Samples = tuple[dict[str, object], ...]


def run_apart(
    job: NodeJob,
    storage: Storage,
    share_links: ShareLinkReader,
    recorder: Recorder,
    on_progress: Callable[[Progress], None] = lambda _: None,
    stopping: Callable[[], bool] = lambda: False,
) -> tuple[Progress, Samples, int]:
    """As run_node, but that a unit at which the process dies is recorded as failed; how many did so comes last.

    Where the process dies, the units that were in its hands go one at a time, each in a process that is known to be
    at that unit alone. One at which this dies too is left out; the innocent ones are done by then, and all go on
    together. Raises NodeFailed where it dies at the model, or at one unit after the other.
    """
    node = _Node(job, storage, share_links, recorder, Tally(job.unit_count, on_progress), stopping)
    units = (unit for unit in job.units if unit is not None)
    at_once = 2 * AT_ONCE
    while suspects := node.together(units, at_once):
        lost = node.lost
        node.one_by_one(suspects)
        if node.lost == lost:
            # It is not for one of them: they may be too many for the memory.
            at_once = max(1, at_once // 2)
    return node.tally.progress, tuple(node.samples), node.lost


@dataclass(frozen=True)
class _Ready:
    """The model is loaded."""


@dataclass(frozen=True)
class _Ended:
    samples: Samples


@dataclass(frozen=True)
class _Failed:
    error: NodeFailed | StorageFailed | OwnershipLost | RuntimeError


_Message = _Ready | _Ended | _Failed | Progress | UnitResult | UnitError


class _Died(Exception):
    """The process is dead."""

    def __init__(self, status: int) -> None:
        self.stuck = status == STUCK
        """It ended itself, since a call of the model, or a decoder, did not come back."""
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        super().__init__(f"{name}, as where memory ends" if name == "SIGKILL" else name)


class _Child:
    """The process that works, seen from the one that watches over it. A context manager; leaving it ends it."""

    def __init__(self, job: NodeJob, storage: Storage, share_links: ShareLinkReader) -> None:
        context = multiprocessing.get_context("spawn")  # it has none of this one's threads, which may be in any state
        self._connection, theirs = context.Pipe()
        asked, self._stop = context.Pipe(duplex=False)
        self._process = context.Process(target=_work, args=(job, storage, share_links, theirs, asked), name="node")
        self._process.start()
        theirs.close()
        asked.close()
        self.under_way: dict[tuple[int, int], Unit] = {}
        self._fed = False

    def feed(self, units: Iterator[Unit], at_once: int) -> None:
        """Hands out units until so many are under way."""
        while not self._fed and len(self.under_way) < at_once:
            unit = next(units, None)
            if unit is None:
                self.end()
            else:
                self.under_way[unit.line, unit.part] = unit
                self._send(unit)

    def end(self) -> None:
        """Hands out no more."""
        if not self._fed:
            self._fed = True
            self._send(None)

    def stop(self) -> None:
        """Has it give up what is under way."""
        self.end()
        with suppress(OSError):
            self._stop.send(None)

    def _send(self, unit: Unit | None) -> None:
        with suppress(ConnectionError):  # that it is dead is seen once all is read that it said
            self._connection.send(unit)

    def message(self) -> _Message | None:
        """What it says next, None where it says nothing for now. Raises _Died, and what it failed with."""
        try:
            message: _Message | None = self._connection.recv() if self._connection.poll(POLL_SECONDS) else None
        except (EOFError, ConnectionError):
            self._process.join()
            raise _Died(self._process.exitcode or 0) from None
        if isinstance(message, _Failed):
            raise message.error
        if isinstance(message, UnitResult | UnitError):
            del self.under_way[message.line, message.part]
        return message

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._process.join(END_SECONDS)
        self._process.kill()
        self._process.join()
        self._connection.close()
        self._stop.close()


class _Node:
    """Watches over one process after the other."""

    def __init__(
        self,
        job: NodeJob,
        storage: Storage,
        share_links: ShareLinkReader,
        recorder: Recorder,
        tally: Tally,
        stopping: Callable[[], bool],
    ) -> None:
        self._job = replace(job, units=())
        self._storage, self._share_links, self._recorder = storage, share_links, recorder
        self._stopping, self._given_up = stopping, False
        self._in_a_row = 0
        self.tally = tally
        self.samples: list[dict[str, object]] = []
        self.lost = 0

    def stopped(self) -> bool:
        return self._given_up

    def together(self, units: Iterator[Unit], at_once: int) -> list[Unit]:
        """Does the units, so many at once. Those that were under way when the process died; none once all are done."""
        return self._done(units, at_once)[0]

    def one_by_one(self, units: list[Unit]) -> None:
        """Does the units, each alone, and leaves out those that the process dies at."""
        left = iter(units)
        while True:
            culprits, death = self._done(left, 1)
            if death is None:
                return
            for unit in culprits:
                self._leave_out(unit, death)

    def _done(self, units: Iterator[Unit], at_once: int) -> tuple[list[Unit], _Died | None]:
        first = next(units, None)
        if first is None or self.stopped():
            return [], None
        with _Child(self._job, self._storage, self._share_links) as child:
            self._await_model(child)
            try:
                self._serve(child, chain([first], units), at_once)
            except _Died as death:
                return ([], None) if self.stopped() else (list(child.under_way.values()), death)
        return [], None

    def _await_model(self, child: _Child) -> None:
        try:
            while not isinstance(child.message(), _Ready):
                pass
        except _Died as death:
            raise NodeFailed(f"the process died while it loaded the model ({death})") from death

    def _serve(self, child: _Child, units: Iterator[Unit], at_once: int) -> None:
        read = 0
        while True:
            child.feed(units, at_once)
            message = child.message()
            if isinstance(message, UnitResult | UnitError):
                self._record(message)
            elif isinstance(message, Progress):
                self.tally.count(read=message.bytes_read - read)
                read = message.bytes_read
            elif isinstance(message, _Ended):
                self.samples = [*self.samples, *message.samples][:SAMPLED]
                return
            self.tally.say()
            if not self.stopped() and self._stopping():
                self._given_up = True
                child.stop()

    def _record(self, outcome: UnitResult | UnitError) -> None:
        self._recorder.record(outcome)
        if isinstance(outcome, UnitResult):
            self._in_a_row = 0
            self.tally.count(rows=outcome.rows or 0, failed_rows=outcome.failed_rows or 0)
        self.tally.unit(outcome)

    def _leave_out(self, unit: Unit, death: _Died) -> None:
        if death.stuck:
            code = "timed_out"
            what = f"its work did not come back within {self._job.batch_seconds:g} seconds, and could not be ended"
        else:
            code, what = "engine_died", f"the process died twice at this input, the second time at it alone ({death})"
        _log.warning("line %d of the input list is left out: %s", unit.line, what)
        self._record(UnitError(unit.line, unit.digest, unit.part, code, what))
        self.lost += 1
        self._in_a_row += 1
        if self._in_a_row >= HOPELESS:
            raise NodeFailed(
                f"the process died at {HOPELESS} inputs one after the other ({death}); the model can't be run here"
            )


def _work(
    job: NodeJob,
    storage: Storage,
    share_links: ShareLinkReader,
    connection: Connection[_Message, Unit | None],
    stop: Connection[None, None],
) -> None:
    """The process that works. What it is to do, and when to stop, its parent says, not a signal.

    Its storage asks for itself whether it may still change anything: its parent may be asleep.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _be_killed_with_parent()
    threading.Thread(target=_die_with_parent, name="die-with-parent", daemon=True).start()
    guard = threading.Lock()

    def say(message: _Message) -> None:
        with guard:
            connection.send(message)

    def units() -> Iterator[Unit | None]:
        say(_Ready())
        while True:
            if not connection.poll(POLL_SECONDS):
                yield None  # what has failed here is told before the next unit comes: it may be waited for
            elif (unit := connection.recv()) is not None:
                yield unit
            else:
                return

    try:
        progress, samples = run_node(
            replace(job, units=units()), storage, share_links, _Told(say), on_progress=say, stopping=stop.poll
        )
    except (NodeFailed, StorageFailed, OwnershipLost) as error:
        say(_Failed(error))
    except Exception:  # noqa: BLE001 - the edge of the process: raised by its parent
        say(_Failed(RuntimeError(traceback.format_exc())))
    else:
        say(progress)
        say(_Ended(samples))


@dataclass(frozen=True)
class _Told:
    """Where the process that works writes down what is finished."""

    say: Callable[[UnitResult | UnitError], None]

    def record(self, outcome: UnitResult | UnitError) -> None:
        self.say(outcome)


def _be_killed_with_parent() -> None:
    """By the kernel, where it does that: at once, whatever this process is in."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _die_with_parent() -> None:
    """Also where the parent died before the kernel was asked, or has no such thing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
