"""Makes a block of a CSV regular, so that a fast reader sees the same rows as an exact one."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from batch_pipeline.node.csv_fields import split_row

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_COMMA, _LF, _CR, _QUOTE = b',\n\r"'
_ODD = 8
"""Where more than one line in so many is odd, the block is not worth making regular."""

_STRIP = 1024 * 1024
"""Bytes that stay in a processor's cache while they are looked at."""

WIDEST = 10_000
"""Fields of the first row, for each of which a fast reader makes a column, be it taken or not."""


@dataclass(frozen=True)
class Regular:
    """A block with LF line ends and `count` rows, the first of which is not blank.

    It is UTF-8, has no other CR, and quotes only around whole fields or doubled inside them. Rows that are not so have
    empty fields in `text`, and stand in `odd` as they were.
    """

    text: bytes
    count: int
    first: str
    odd: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def width(self) -> int | None:
        """Fields of the first row; None where they are more than WIDEST."""
        found = len(split_row(self.first, WIDEST + 1))
        return found if found <= WIDEST else None

    def row(self, number: int) -> bytes:
        """One row as it was, without its line end."""
        if number in self.odd:
            return self.odd[number]
        ends = self._ends
        start = int(ends[number - 1]) + 1 if number else 0
        return self.text[start : int(ends[number]) if number < len(ends) else len(self.text)]

    @cached_property
    def widths(self) -> Array:
        """How many fields each row has: a blank one none."""
        import numpy as np

        starts, ends, first = self._bounds
        fields = np.searchsorted(self._commas, ends) - first + 1
        widths: Array = np.where(starts == ends, 0, fields)
        return widths

    def empty(self, index: int) -> Array:
        """Whether a row has a field of this number with nothing in it, not even quotes."""
        import numpy as np

        starts, ends, first = self._bounds
        # Guarded by a row's end on either side, where it has fewer commas.
        commas = np.concatenate([self._commas, ends[-1:], ends[-1:]])
        begin = starts if index == 0 else np.minimum(commas[np.minimum(first + index - 1, len(commas) - 1)] + 1, ends)
        end = np.minimum(commas[np.minimum(first + index, len(commas) - 1)], ends)
        empty: Array = (begin == end) & (self.widths > index)
        return empty

    @cached_property
    def _bounds(self) -> tuple[Array, Array, Array]:
        """Where each row starts and ends, and the number of its first comma."""
        import numpy as np

        ends = self._ends if len(self._ends) == self.count else np.append(self._ends, len(self._bytes))
        starts = np.concatenate([[0], ends[:-1] + 1])
        return starts, ends, np.searchsorted(self._commas, starts)

    @cached_property
    def _commas(self) -> Array:
        commas: Array = _places(self._bytes, _COMMA)
        if self._quoted is not None:
            commas = commas[~self._quoted[commas]]
        return commas

    @cached_property
    def _bytes(self) -> Array:
        return _bytes(self.text)

    @cached_property
    def _quoted(self) -> Array | None:
        """Whether a byte stands between quotes; None where there are none."""
        import numpy as np

        return np.logical_xor.accumulate(self._bytes == _QUOTE) if b'"' in self.text else None

    @cached_property
    def _ends(self) -> Array:
        """Where the line ends are that end a row."""
        ends = _places(self._bytes, _LF)
        return ends if self._quoted is None else ends[~self._quoted[ends]]


def regular(block: bytes, *, multiline: bool) -> Regular | None:
    """The block as a regular one, where it is or can be made one. `multiline`: line ends may stand between quotes."""
    if block.startswith(BOM_UTF8):  # which belongs to the first field, but is no text to a fast reader
        return None
    if multiline and b'"' in block:
        return _of_whole_rows(block) if _is_utf8(block) and b"\r" not in block else None
    odd: dict[int, bytes] = {}
    has_returns = b"\r" in block
    finders = [_not_utf8, *([_lone_returns] if has_returns else []), *(_OF_QUOTES if b'"' in block else [])]
    for find in finders:
        block = _emptied(block, find(block), odd)
    if has_returns:
        block = block.replace(b"\r\n", b"\n")
    count = _row_count(block)
    if block.startswith(b"\n") or 0 in odd or len(odd) * _ODD > count:
        return None
    return Regular(block, count, block[: _end_of_line(block)].decode(), odd)


def last_row_end(block: bytes) -> int | None:
    """Where the last row that ends in this block of rows with quotes ends; None where that takes an exact look."""
    data = _bytes(block)
    outside = _outside(data, _places(data, _QUOTE))
    end = int(outside[-1]) + 1 if len(outside) else 0
    return end if end and regular(block[:end], multiline=True) is not None else None


def end_of_lines(block: bytes | memoryview, count: int) -> int:
    """Where the first `count` lines of a block end."""
    if _line_ends(block) <= count:
        return len(block)
    return int(_places(_bytes(block), _LF)[count - 1]) + 1


def _of_whole_rows(block: bytes) -> Regular | None:
    """A block whose quoted fields may hold line ends: nothing can be told of one row before all are right."""
    data = _bytes(block)
    quotes = _places(data, _QUOTE)
    if block.startswith(b"\n") or len(quotes) % 2 or len(_misplaced(data, quotes)):
        return None
    outside = _outside(data, quotes)
    last_ends = len(outside) > 0 and int(outside[-1]) == len(block) - 1
    first = block[: outside[0]] if len(outside) else block
    return Regular(block, len(outside) + (not last_ends), first.decode())


def _not_utf8(block: bytes) -> Sequence[int]:
    """Numbers of the lines that are not UTF-8."""
    if block.isascii() or _is_utf8(block):
        return ()
    import numpy as np

    lines = block.split(b"\n")
    beyond_ascii = np.unique(_lines_of(block, np.flatnonzero(_bytes(block) >= 0x80)))
    return [number for number in beyond_ascii.tolist() if not _is_utf8(lines[number])]


def _lone_returns(block: bytes) -> Sequence[int]:
    """Numbers of the lines with a CR that is not before their LF."""
    import numpy as np

    data = _bytes(block)
    returns = _places(data, _CR)
    after = data[np.minimum(returns + 1, len(data) - 1)]
    return _numbers(_lines_of(block, returns[after != _LF]))


def _unquotable(block: bytes) -> Sequence[int]:
    """Numbers of the lines with an odd number of quotes."""
    import numpy as np

    lines, counts = np.unique(_lines_of(block, _places(_bytes(block), _QUOTE)), return_counts=True)
    return _numbers(lines[counts % 2 == 1])


def _misquoted(block: bytes) -> Sequence[int]:
    """Numbers of the lines with a quote in a wrong place, where every line has an even number of them."""
    data = _bytes(block)
    return _numbers(_lines_of(block, _misplaced(data, _places(data, _QUOTE))))


_OF_QUOTES = (_unquotable, _misquoted)


def _misplaced(data: Array, quotes: Array) -> Array:
    """Which of an even number of quotes neither open or close a whole field nor are doubled inside one."""
    import numpy as np

    opening, closing = quotes[0::2], quotes[1::2]
    doubled = opening[1:] == closing[:-1] + 1
    before = np.where(opening == 0, _LF, data[opening - 1])
    opens = (before == _COMMA) | (before == _LF)
    opens[1:] |= doubled
    after = np.where(closing == len(data) - 1, _LF, data[np.minimum(closing + 1, len(data) - 1)])
    closes = (after == _COMMA) | (after == _LF) | (after == _CR)
    closes[:-1] |= doubled
    return np.concatenate([opening[~opens], closing[~closes]])


def _emptied(block: bytes, numbers: Sequence[int], odd: dict[int, bytes]) -> bytes:
    """The block with empty fields in these lines; what they were is added to `odd`."""
    if not numbers:
        return block
    lines = block.split(b"\n")
    for number in numbers:
        odd.setdefault(number, lines[number].removesuffix(b"\r") if number < len(lines) - 1 else lines[number])
        lines[number] = b","
    return b"\n".join(lines)


def _lines_of(block: bytes, places: Array) -> Array:
    import numpy as np

    lines: Array = np.searchsorted(_places(_bytes(block), _LF), places)
    return lines


def _numbers(lines: Array) -> Sequence[int]:
    numbers: list[int] = lines.tolist()
    return numbers


def _outside(data: Array, quotes: Array) -> Array:
    """The line ends that do not stand between quotes."""
    import numpy as np

    line_ends = _places(data, _LF)
    outside: Array = line_ends[np.searchsorted(quotes, line_ends) % 2 == 0]
    return outside


def _row_count(block: bytes) -> int:
    return _line_ends(block) + (not block.endswith(b"\n"))


def _line_ends(block: bytes | memoryview) -> int:
    """Several times quicker than bytes.count, and without as many bytes again."""
    import numpy as np

    data, is_end = _bytes(block), np.empty(min(_STRIP, len(block)), dtype=bool)
    count = 0
    for start in range(0, len(data), _STRIP):
        strip = data[start : start + _STRIP]
        count += int(np.count_nonzero(np.equal(strip, _LF, out=is_end[: len(strip)])))
    return count


def _end_of_line(block: bytes) -> int:
    found = block.find(b"\n")
    return found if found >= 0 else len(block)


def _places(data: Array, byte: int) -> Array:
    import numpy as np

    places: Array = np.flatnonzero(data == byte)
    return places


def _bytes(block: bytes | memoryview) -> Array:
    import numpy as np

    return np.frombuffer(block, dtype=np.uint8)


def _is_utf8(block: bytes) -> bool:
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True
