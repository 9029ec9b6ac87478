"""Tells whether a block of a CSV is of regular structure, so that a fast reader sees the same rows as an exact one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_COMMA, _LF, _CR = b",\n\r"


def regular(block: bytes, *, multiline: bool) -> tuple[bytes, int, str] | None:
    """(the block with LF line ends, its number of rows, its first row), or None.

    Regular: UTF-8, no blank rows, no CR but before LF, quotes only around whole fields or doubled inside them, and
    (unless `multiline`) no line end between quotes.
    """
    if not block.isascii() and not _is_utf8(block):
        return None
    carriage_returns = block.count(b"\r")
    if carriage_returns:
        if carriage_returns != block.count(b"\r\n"):
            return None
        multiline = False  # a quoted CRLF has to stay one
        block = block.replace(b"\r\n", b"\n")
    if block.startswith(b"\n") or b"\n\n" in block:
        return None
    if b'"' not in block:
        first = block[: block.find(b"\n")] if b"\n" in block else block
        return block, _count(block, block.count(b"\n")), first.decode()
    return _regular_quoted(block, multiline=multiline)


def _is_utf8(block: bytes) -> bool:
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _count(block: bytes, line_ends: int) -> int:
    return line_ends + (not block.endswith(b"\n"))


def _regular_quoted(block: bytes, *, multiline: bool) -> tuple[bytes, int, str] | None:
    import numpy as np

    data = np.frombuffer(block, dtype=np.uint8)
    quotes = np.flatnonzero(data == ord('"'))
    if len(quotes) % 2:
        return None
    opening, closing = quotes[0::2], quotes[1::2]
    doubled = opening[1:] == closing[:-1] + 1
    before = np.where(opening == 0, _LF, data[opening - 1])
    opens = (before == _COMMA) | (before == _LF)
    opens[1:] |= doubled
    after = np.where(closing == len(data) - 1, _LF, data[np.minimum(closing + 1, len(data) - 1)])
    closes = (after == _COMMA) | (after == _LF)
    closes[:-1] |= doubled
    if not (opens.all() and closes.all()):
        return None
    line_ends = np.flatnonzero(data == _LF)
    outside = line_ends[np.searchsorted(quotes, line_ends) % 2 == 0]
    if len(outside) != len(line_ends) and not multiline:
        return None
    first = block[: outside[0]] if len(outside) else block
    last_ends = len(outside) > 0 and int(outside[-1]) == len(block) - 1
    return block, len(outside) + (not last_ends), first.decode()


def last_row_end(block: bytes) -> int | None:
    """Where the last row that ends in this block of rows with quotes ends; None where that takes an exact look."""
    import numpy as np

    data = np.frombuffer(block, dtype=np.uint8)
    quotes = np.flatnonzero(data == ord('"'))
    line_ends = np.flatnonzero(data == _LF)
    outside = line_ends[np.searchsorted(quotes, line_ends) % 2 == 0]
    end = int(outside[-1]) + 1 if len(outside) else 0
    return end if end and regular(block[:end], multiline=True) is not None else None
