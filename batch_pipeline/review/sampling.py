"""Which answers are looked at: a bounded, repeatable sample over the results, read in ranges spread over each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import orjson

from batch_pipeline.locations import Location
from batch_pipeline.row_errors import row_error

if TYPE_CHECKING:
    import polars as pl

    from batch_pipeline.storage import Storage

MOST_RESULTS = 500
MOST_ANSWERS = 10_000
MOST_BYTES = 8 * 2**20
"""What may be read in all; a result with longer lines than this is not looked at."""
RANGES = 16
"""A large result is read at so many places, fewer where there are more results than one."""
LEAST_RANGE = 4 * 1024
AT_ONCE = 32


@dataclass(frozen=True)
class Chosen:
    """A result to be looked at."""

    line: int
    """Of the input, in the input list."""
    result: Location
    size: int
    rows: int
    """1 for the result of a file."""


@dataclass(frozen=True)
class Answer:
    """One line of a result that holds an answer. `place`: the byte of the result where it begins."""

    line: int
    place: int
    size: int
    value: Any


@dataclass(frozen=True)
class Sample:
    """The answers that were read, and what else was met among them."""

    answers: tuple[Answer, ...]
    row_errors: int = 0
    not_json: int = 0


@dataclass(frozen=True)
class _Range:
    of: Chosen
    start: int
    end: int
    most: int
    """Lines."""


def chosen_lines(accounted: Iterable[pl.DataFrame]) -> dict[int, int]:
    """Input lines whose results are looked at, in the order of their digests, which is none of theirs; each with
    its rank. Those with the smallest digests: a pure function of the sources."""
    import polars as pl

    able = pl.col("duplicate_of").is_null() & (pl.col("result_size") > 0)
    chosen = pl.DataFrame(schema={"line": pl.UInt64, "digest": pl.Binary})
    for frame in accounted:
        found = frame.filter(able).select(chosen.columns)
        chosen = pl.concat([chosen, found]).bottom_k(MOST_RESULTS, by=["digest", "line"])
    return {line: rank for rank, line in enumerate(chosen.sort("digest", "line")["line"])}


def read_sample(storage: Storage, chosen: Sequence[Chosen], *, join_input: bool) -> Sample:
    """The sample of these results' answers, in their order. Storage's errors pass through."""
    ranges = list(_ranges(chosen))
    answers: list[Answer] = []
    row_errors = not_json = 0
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="review") as pool:
        for span, lines in zip(ranges, pool.map(lambda span: _lines(storage, span), ranges), strict=True):
            for place, line in lines:
                try:
                    value = orjson.loads(line)
                except orjson.JSONDecodeError:
                    not_json += 1
                    continue
                if row_error(value) is not None:
                    row_errors += 1
                else:
                    answer = without_input(value) if join_input else value
                    answers.append(Answer(span.of.line, place, len(line), answer))
    return Sample(tuple(answers), row_errors, not_json)


def without_input(answer: Any) -> Any:
    """The answer as the model gave it, where a line also carries its row under `input`."""
    if not isinstance(answer, dict):
        return answer
    return {name: value for name, value in answer.items() if name != "input"}


def _ranges(chosen: Sequence[Chosen]) -> Iterator[_Range]:
    """What to read, within the bounds: of each result its share, at several places where there are few results."""
    share = ceil(MOST_ANSWERS / max(1, len(chosen)))
    left = MOST_BYTES
    for one in chosen:
        mean = one.size / max(1, one.rows)
        fair = min(1.1 * mean * share, MOST_BYTES / len(chosen))
        wanted = min(one.size, int(max(fair, 2 * mean, LEAST_RANGE)))
        if wanted > left:
            continue
        left -= wanted
        places = max(1, min(RANGES // len(chosen), int(wanted / max(2 * mean, LEAST_RANGE))))
        if wanted == one.size:
            places = 1
        length = wanted // places
        for place in range(places):
            start = place * (one.size - length) // max(1, places - 1)
            yield _Range(one, start, start + length, ceil(share / places))


def _lines(storage: Storage, span: _Range) -> list[tuple[int, bytes]]:
    """The complete lines of a range, each with the byte where it begins."""
    start = max(0, span.start - 1)  # with the line end before it, a line that begins with the range is a whole one
    data = storage.read(span.of.result, start, span.end)
    begin = data.find(b"\n") + 1 if span.start else 0
    if span.start and not begin:
        return []
    lines: list[tuple[int, bytes]] = []
    while len(lines) < span.most and (end := data.find(b"\n", begin)) >= 0:
        lines.append((start + begin, data[begin:end]))
        begin = end + 1
    return lines
