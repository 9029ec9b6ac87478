"""Fills batches across files and hands the outputs back; finds the rows that a model refuses."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from batch_pipeline.errors import NodeFailed
from batch_pipeline.node.batch_size import BatchSize
from batch_pipeline.node.csv_fields import RowError
from batch_pipeline.node.engine import BatchFailed, Engine, OutOfMemory, Outputs, TimedOut

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


LEAST_PART = 1 / 16
"""Of the time limit, for the few rows that are left of a call that took too long."""


class Stopped(Exception):
    """The node was told to stop before these rows were answered."""


class _NotByRow(Exception):
    """The outputs of several rows together have no entry a row: the rows have to go one by one."""


@dataclass
class Answered:
    """The outputs of a piece's good rows, in order, and why each of the others has none (by position in the piece)."""

    outputs: Outputs = field(default_factory=dict)
    failed: dict[int, RowError] = field(default_factory=dict)


@dataclass
class _Piece:
    make: Callable[[], Mapping[str, Array]]
    rows: int
    answer: Future[Answered]
    inputs: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class BatchRule:
    """How many rows go into one call: exactly `fixed` (the last row repeated to fill it), or up to `most`."""

    most: int
    fixed: int | None = None
    first: int | None = None
    """How many go into the first calls, before it is known which number is quick; None is `most`."""
    multiple: int = 1
    """A call has its last row repeated up to a multiple of so many: vectors are computed by so many numbers at once,
    and what is left over in another way, as is a matrix of one row."""
    whole: bool = False
    """The input has no batch dimension: one piece is one call."""
    ranks: Mapping[str, int] = field(default_factory=dict)
    """Dimensions each output has with its batch dimension, where known: a model of one row may leave it out."""


class _Stoppable:
    """An engine that takes no more calls once it is stopped."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.lanes = engine.lanes
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True
        self._engine.stop()

    def run(self, inputs: Mapping[str, Array], part: float = 1.0) -> Outputs:
        if self._stopped:
            raise Stopped
        try:
            return self._engine.run(inputs, part)
        except BatchFailed:
            if self._stopped:
                raise Stopped from None
            raise


class BatchingEngine:
    """An engine on threads of its own, fed from any thread. A context manager; leaving it ends the threads."""

    def __init__(self, engine: Engine, rule: BatchRule) -> None:
        self._engine = _Stoppable(engine)
        self._rule = rule
        self._size = size_of(rule)
        self._waiting: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, name=f"engine-{lane}", daemon=True) for lane in range(engine.lanes)
        ]

    def __enter__(self) -> BatchingEngine:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for _thread in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def submit(self, inputs: Mapping[str, Array], rows: int) -> Future[Answered]:
        """The answers to `rows` rows. Memory is bounded by how many of these a caller lets run at once."""
        if rows:
            return self.submit_unmade(lambda: inputs, rows)
        answer: Future[Answered] = Future()
        answer.set_result(Answered())
        return answer

    def submit_unmade(self, make: Callable[[], Mapping[str, Array]], rows: int) -> Future[Answered]:
        """The same for inputs that are made on the engine's thread just before the call: what `make` raises is raised.

        For an engine that has a thread for each core. One that computes elsewhere would wait.
        """
        answer: Future[Answered] = Future()
        self._waiting.put(_Piece(make, rows, answer))
        return answer

    def stop(self) -> None:
        """Ends the calls that are under way, and makes no more: who waits for an answer gets Stopped."""
        self._engine.stop()

    def _serve(self) -> None:
        """The outermost edge of the thread: whatever goes wrong goes to those who wait for the answers."""
        ended = False
        while not ended:
            waiting, ended = self._next_batch()
            pieces = [piece for piece in waiting if _is_made(piece)]
            if not pieces:
                continue
            try:
                answers = self._answer(pieces)
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits
                for piece in pieces:
                    piece.answer.set_exception(error)
            else:
                for piece, answer in zip(pieces, answers, strict=True):
                    piece.answer.set_result(answer)

    def _next_batch(self) -> tuple[list[_Piece], bool]:
        """What waits now, up to a batch: the engine never waits for a batch to fill. True at the end of all.

        No more than this lane's share, so that none has much to do where the others have nothing left. What is to be
        full costs as much where it is not.
        """
        first = self._waiting.get()
        if first is None:
            return [], True
        pieces, rows = [first], first.rows
        lanes = 1 if self._rule.fixed is not None else self._engine.lanes
        share = 1 if self._rule.whole else -(-(1 + self._waiting.qsize()) // lanes)
        while len(pieces) < share and rows < self._size.rows:
            try:
                piece = self._waiting.get_nowait()
            except queue.Empty:
                break
            if piece is None:
                return pieces, True
            pieces.append(piece)
            rows += piece.rows
        return pieces, False

    def _answer(self, pieces: list[_Piece]) -> list[Answered]:
        """Pieces that can be joined go as one; images of free size, and bytes, may differ from one to the next."""
        alike: dict[object, list[int]] = {}
        for number, piece in enumerate(pieces):
            kind = tuple((name, array.shape[1:], array.dtype) for name, array in piece.inputs.items())
            alike.setdefault(kind, []).append(number)
        answers = dict[int, Answered]()
        for numbers in alike.values():
            answers.update(zip(numbers, self._answer_joined([pieces[number] for number in numbers]), strict=True))
        return [answers[number] for number in range(len(pieces))]

    def _answer_joined(self, pieces: list[_Piece]) -> list[Answered]:
        if len(pieces) == 1:
            return [answer_rows(self._engine, self._rule, pieces[0].inputs, pieces[0].rows, self._size)]
        import numpy as np

        inputs = {name: np.concatenate([piece.inputs[name] for piece in pieces]) for name in pieces[0].inputs}
        rows = sum(piece.rows for piece in pieces)
        answered = answer_rows(self._engine, self._rule, inputs, rows, self._size)
        return _scatter(answered, [piece.rows for piece in pieces])


def _is_made(piece: _Piece) -> bool:
    """Makes the inputs of a piece. What goes wrong goes to whoever waits for its answer, and to nobody else."""
    try:
        piece.inputs = piece.make()
    except BaseException as error:  # noqa: BLE001 - handed to whoever waits
        piece.answer.set_exception(error)
        return False
    return True


def size_of(rule: BatchRule) -> BatchSize:
    """The size of batches to begin with."""
    if rule.fixed is not None:
        return BatchSize(rule.fixed, rule.fixed)
    return BatchSize(rule.first or rule.most, rule.most)


def answer_rows(
    engine: Engine, rule: BatchRule, inputs: Mapping[str, Array], rows: int, size: BatchSize | None = None
) -> Answered:
    """Every row's answer or reason, in batches as the rule has it. Raises NodeFailed for outputs that fit no row."""
    calls = _Calls(engine, rule, size or size_of(rule))
    calls.answer_all(inputs, rows, 0)
    return Answered(_joined(calls.parts), calls.failed)


class _Calls:
    """The calls for one lot of rows: their outputs, in order, and why each of the other rows has none."""

    def __init__(self, engine: Engine, rule: BatchRule, size: BatchSize) -> None:
        self._engine, self._rule, self.size = engine, rule, size
        self.parts: list[Outputs] = []
        self.failed: dict[int, RowError] = {}
        self._part = 1.0

    def answer_all(self, inputs: Mapping[str, Array], rows: int, offset: int) -> None:
        """In batches as large as they may be by then."""
        start, whole = 0, self._rule.whole
        while start < rows:
            count = rows if whole else min(self.size.rows, rows - start)
            self._answer(inputs if whole else _slice(inputs, start, count), count, offset + start)
            start += count

    def _answer(self, inputs: Mapping[str, Array], rows: int, offset: int) -> None:
        """Halves a batch that fails until only the guilty rows are left out."""
        try:
            self._call(inputs, rows, self._rule.multiple)
        except _NotByRow:
            for start in range(rows):
                self._answer_alone(_slice(inputs, start, 1), offset + start)
        except BatchFailed as error:
            if isinstance(error, OutOfMemory):
                self.size.too_many(rows)
            if rows > 1:
                self._answer_halves(inputs, rows, offset, error)
            elif isinstance(error, TimedOut):
                self._answer_in_full_time(inputs, offset, error)
            else:
                self._answer_alone(inputs, offset)

    def _answer_halves(self, inputs: Mapping[str, Array], rows: int, offset: int, error: BatchFailed) -> None:
        """Where all together took too long, each half has half the time: a call that hangs costs little more then.

        Where no row was to blame, they were too many.
        """
        part, failed, timed_out = self._part, len(self.failed), isinstance(error, TimedOut)
        if timed_out and self._rule.fixed is None:
            self._part = max(part / 2, LEAST_PART)
        half = rows // 2
        self.answer_all(_slice(inputs, 0, half), half, offset)
        self.answer_all(_slice(inputs, half, rows - half), rows - half, offset + half)
        if timed_out and len(self.failed) == failed:
            self.size.too_many(rows)
        self._part = part

    def _answer_in_full_time(self, inputs: Mapping[str, Array], offset: int, error: TimedOut) -> None:
        """A row that took too long, once more: alone and with all the time there is, if it was not so before."""
        called = self._called(1, self._rule.multiple)
        if self._part == 1 and called == self._called(1, 1):
            self._fail(offset, error)
            return
        part, self._part, failed = self._part, 1.0, len(self.failed)
        self._answer_alone(inputs, offset)
        if len(self.failed) == failed:
            self.size.too_many(called)
        self._part = part

    def _answer_alone(self, inputs: Mapping[str, Array], offset: int) -> None:
        """One row, and only once: some models take no more, and one that is guilty is so alone."""
        try:
            self._call(inputs, 1, 1)
        except BatchFailed as error:
            self._fail(offset, error)

    def _fail(self, offset: int, error: BatchFailed) -> None:
        self.failed[offset] = RowError(error.code, str(error))

    def _call(self, inputs: Mapping[str, Array], rows: int, multiple: int) -> None:
        rule = self._rule
        called = self._called(rows, multiple)
        began = time.perf_counter()
        padded = {name: _padded(array, called - rows) for name, array in inputs.items()}
        outputs = self._engine.run(padded, self._part)
        self.size.took(called, time.perf_counter() - began)
        self.parts.append({name: _of_rows(name, value, rule, rows, called) for name, value in outputs.items()})

    def _called(self, rows: int, multiple: int) -> int:
        """How many rows a call of these has in the end: no more than there is memory for."""
        if self._rule.whole:
            return rows
        return self._rule.fixed or max(rows, min(self.size.rows, -(-rows // multiple) * multiple))


def _slice(inputs: Mapping[str, Array], start: int, count: int) -> dict[str, Array]:
    return {name: array[start : start + count] for name, array in inputs.items()}


def _padded(array: Array, padding: int) -> Array:
    import numpy as np

    return np.concatenate([array, np.repeat(array[-1:], padding, axis=0)]) if padding else array


def _of_rows(name: str, value: Any, rule: BatchRule, rows: int, called: int) -> Any:
    """An output's first `rows` entries; a model of one row may leave the batch dimension out."""
    if isinstance(value, list):
        return value[:rows]
    wanted = rule.ranks.get(name)
    of_one_row = value.ndim == 0 or value.ndim + 1 == wanted
    if called == 1 and (of_one_row or (wanted is None and len(value) != 1)):
        value = value[None]
    elif of_one_row or len(value) != called:
        what = f"the model's output {name!r} has shape {list(value.shape)} for {called} rows; one entry a row is needed"
        raise NodeFailed(what) if called == 1 or rule.fixed else _NotByRow
    return value[:rows]


def _joined(parts: list[Outputs]) -> Outputs:
    import numpy as np

    if len(parts) <= 1:
        return parts[0] if parts else {}
    joined: Outputs = {}
    for name, first in parts[0].items():
        values = [part[name] for part in parts]
        alike = not isinstance(first, list) and len({value.shape[1:] for value in values}) == 1
        joined[name] = np.concatenate(values) if alike else list(chain(*values))
    return joined


def _scatter(answered: Answered, sizes: list[int]) -> list[Answered]:
    """The answers of several pieces that went as one."""
    answers = []
    row = good = 0
    for size in sizes:
        failed = {at - row: why for at, why in answered.failed.items() if row <= at < row + size}
        count = size - len(failed)
        outputs = {name: value[good : good + count] for name, value in answered.outputs.items()}
        answers.append(Answered(outputs, failed))
        row, good = row + size, good + count
    return answers
