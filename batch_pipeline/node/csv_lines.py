"""The lines of a CSV's result: each row's answer or error in the row's place, with the row itself where asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from batch_pipeline.models.binding import Binding
from batch_pipeline.node.answers import answer_texts, is_object
from batch_pipeline.node.batching import Answered
from batch_pipeline.node.csv_fields import RowError
from batch_pipeline.node.csv_rows import Rows
from batch_pipeline.node.leaf_texts import Texts, listed


@dataclass(frozen=True)
class Lines:
    """`text`: one line a row, each with its line end. `failed`: the numbers of the rows that have an error."""

    text: bytes
    rows: int
    failed: Collection[int] = ()

    @property
    def failed_rows(self) -> int:
        return len(self.failed)

    def cut(self, counts: Iterable[int]) -> Iterator[Lines]:
        """The same by so many rows at a time."""
        texts = self.text.split(b"\n")
        start = 0
        for count in counts:
            end = start + count
            text = b"\n".join([*texts[start:end], b""])
            yield Lines(text, count, [number - start for number in self.failed if start <= number < end])
            start = end


def joined_lines(blocks: Iterable[Lines]) -> Lines:
    """All of a file as one."""
    texts: list[bytes] = []
    failed: list[int] = []
    rows = 0
    for block in blocks:
        texts.append(block.text)
        failed += [rows + number for number in block.failed]
        rows += block.rows
    return Lines(b"".join(texts), rows, failed)


def result_lines(
    binding: Binding, rows: Rows, answered: Answered, raw: list[list[str]] | None, names: list[str] | None
) -> Lines:
    """`raw` are the rows' fields where each line also carries its row: under the names of the header, else a list."""
    import numpy as np

    good = rows.count - len(rows.errors)
    answers = answer_texts(binding, answered.outputs, good - len(answered.failed))
    errors = dict(rows.errors)
    if not errors and not answered.failed:
        texts = answers
    else:
        keep = np.ones(rows.count, dtype=bool)
        keep[list(errors)] = False
        places = np.flatnonzero(keep)
        for position, reason in answered.failed.items():
            errors[int(places[position])] = reason
        keep[list(errors)] = False
        everything = np.empty(rows.count, dtype=object)
        everything[keep] = listed(answers)
        for number, error in errors.items():
            everything[number] = error_text(error)
        texts = everything.tolist()
    if raw is not None:
        texts = _joined(listed(texts), raw, names, errors, wrap=not is_object(binding))
    return Lines(_joined_lines(texts), rows.count, errors.keys())


def _joined_lines(texts: Texts) -> bytes:
    if not len(texts):
        return b""
    text = "\n".join(texts) if isinstance(texts, list) else texts.str.join("\n").item()
    return f"{text}\n".encode()


def error_text(error: RowError) -> str:
    import orjson

    return orjson.dumps({"error": {"code": error.code, "message": error.message}}).decode()


def _joined(
    texts: list[str], raw: list[list[str]], names: list[str] | None, errors: dict[int, RowError], *, wrap: bool
) -> list[str]:
    import orjson

    joined = []
    for number, (text, fields) in enumerate(zip(texts, raw, strict=True)):
        row = orjson.dumps(fields if names is None else named(fields, names)).decode()
        if wrap and number not in errors:
            joined.append(f'{{"input":{row},"output":{text}}}')
        else:
            joined.append(f'{{"input":{row}' + ("}" if text == "{}" else "," + text[1:]))
    return joined


def named(fields: list[str], names: list[str]) -> dict[str, Any]:
    """A row by the header's names; a field without a name, or with one that is taken, has its column number.

    Where that is taken too, underscores follow it.
    """
    row: dict[str, Any] = {}
    for index, field in enumerate(fields):
        name = names[index] if index < len(names) and names[index] not in row else str(index)
        while name in row:
            name += "_"
        row[name] = field
    return row
