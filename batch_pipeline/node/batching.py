"""Fills batches across files and hands the outputs back; finds the rows that a model refuses."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from batch_pipeline.errors import NodeFailed
from batch_pipeline.node.engine import BatchFailed, Engine, Outputs

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


class _NotByRow(Exception):
    """The outputs of several rows together have no entry a row: the rows have to go one by one."""


@dataclass
class Answered:
    """The outputs of a piece's good rows, in order, and why each of the others has none (by position in the piece)."""

    outputs: Outputs = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)


@dataclass
class _Piece:
    inputs: Mapping[str, Array]
    rows: int
    answer: Future[Answered]


@dataclass(frozen=True)
class BatchRule:
    """How many rows go into one call: exactly `fixed` (the last row repeated to fill it), or up to `most`."""

    most: int
    fixed: int | None = None
    whole: bool = False
    """The input has no batch dimension: one piece is one call."""
    ranks: Mapping[str, int] = field(default_factory=dict)
    """Dimensions each output has with its batch dimension, where known: a model of one row may leave it out."""


class BatchingEngine:
    """An engine on a thread of its own, fed from any thread. A context manager; leaving it ends the thread."""

    def __init__(self, engine: Engine, rule: BatchRule) -> None:
        self._engine = engine
        self._rule = rule
        self._waiting: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)

    def __enter__(self) -> BatchingEngine:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.put(None)
        self._thread.join()

    def submit(self, inputs: Mapping[str, Array], rows: int) -> Future[Answered]:
        """The answers to `rows` rows. Memory is bounded by how many of these a caller lets run at once."""
        answer: Future[Answered] = Future()
        if rows:
            self._waiting.put(_Piece(inputs, rows, answer))
        else:
            answer.set_result(Answered())
        return answer

    def _serve(self) -> None:
        """The outermost edge of the thread: whatever goes wrong goes to those who wait for the answers."""
        ended = False
        while not ended:
            pieces, ended = self._next_batch()
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
        """What waits now, up to a batch: the engine never waits for a batch to fill. True at the end of all."""
        first = self._waiting.get()
        if first is None:
            return [], True
        pieces, rows = [first], first.rows
        while not self._rule.whole and rows < (self._rule.fixed or self._rule.most):
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
            return [answer_rows(self._engine, self._rule, pieces[0].inputs, pieces[0].rows)]
        import numpy as np

        inputs = {name: np.concatenate([piece.inputs[name] for piece in pieces]) for name in pieces[0].inputs}
        rows = sum(piece.rows for piece in pieces)
        return _scatter(answer_rows(self._engine, self._rule, inputs, rows), [piece.rows for piece in pieces])


def answer_rows(engine: Engine, rule: BatchRule, inputs: Mapping[str, Array], rows: int) -> Answered:
    """Every row's answer or reason, in batches as the rule has it. Raises NodeFailed for outputs that fit no row."""
    parts: list[Outputs] = []
    failed: dict[int, str] = {}
    step = rule.fixed or rule.most
    for start in range(0, rows, step):
        count = min(step, rows - start)
        batch = inputs if rule.whole else {name: array[start : start + count] for name, array in inputs.items()}
        _bisect(engine, rule, batch, count, start, parts, failed)
    return Answered(_joined(parts), failed)


def _bisect(
    engine: Engine,
    rule: BatchRule,
    inputs: Mapping[str, Array],
    rows: int,
    offset: int,
    parts: list[Outputs],
    failed: dict[int, str],
) -> None:
    """Halves a batch that fails until only the guilty rows are left out."""
    try:
        parts.append(_call(engine, rule, inputs, rows))
    except _NotByRow:
        for start in range(rows):
            part = {name: array[start : start + 1] for name, array in inputs.items()}
            _bisect(engine, rule, part, 1, offset + start, parts, failed)
    except BatchFailed as error:
        if rows == 1:
            failed[offset] = str(error)
            return
        half = rows // 2
        for start, count in ((0, half), (half, rows - half)):
            part = {name: array[start : start + count] for name, array in inputs.items()}
            _bisect(engine, rule, part, count, offset + start, parts, failed)


def _call(engine: Engine, rule: BatchRule, inputs: Mapping[str, Array], rows: int) -> Outputs:
    padding = 0 if rule.fixed is None or rule.whole else rule.fixed - rows
    outputs = engine.run({name: _padded(array, padding) for name, array in inputs.items()})
    return {name: _of_rows(name, value, rule, rows, rows + padding) for name, value in outputs.items()}


def _padded(array: Array, padding: int) -> Array:
    import numpy as np

    return np.concatenate([array, np.repeat(array[-1:], padding, axis=0)]) if padding else array


def _of_rows(name: str, value: Any, rule: BatchRule, rows: int, called: int) -> Any:
    """An output's first `rows` entries; a model of one row may leave the batch dimension out."""
    if isinstance(value, list):
        return value[:rows]
    wanted = rule.ranks.get(name)
    if called == 1 and (value.ndim == 0 or value.ndim + 1 == wanted or (wanted is None and len(value) != 1)):
        value = value[None]
    if value.ndim == 0 or len(value) != called:
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
