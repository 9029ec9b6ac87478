"""Cuts the bytes of a CSV into blocks of whole rows. What a row holds is the business of csv_rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from batch_pipeline.errors import InputFailed
from batch_pipeline.node import csv_regular

BLOCK_BYTES = 4 * 1024 * 1024
"""About so many bytes are parsed and inferred at a time."""

MOST_ROWS = 64 * 1024
"""About so many rows at most, however short: one that is bad, or has a long answer, holds much more than its bytes."""

LONGEST_ROW = 64 * 1024 * 1024
"""A longer row is no CSV (a file without line ends, a quote never closed), and would have to be held whole."""

BOM = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"

_FIELD = rb'(?:"(?:[^"]|"")*+(?:"[^,\n]*+|\Z)|[^",\n][^,\n]*+|)'
_RECORD = re.compile(_FIELD + rb"(?:," + _FIELD + rb")*+(\n|\Z)")


def part_of(chunks: Iterable[bytes], start: int, end: int | None) -> Iterator[bytes]:
    """The bytes of the rows whose first byte lies in [start, end).

    `chunks` begin at byte `start - 1` (0 for the first part), because only the byte before tells whether a row
    begins at `start`, and go on past `end` for as long as the last row needs.
    """
    position = max(start - 1, 0)
    inside = start == 0
    for chunk in chunks:
        skipped = 0
        if not inside:
            found = chunk.find(b"\n")
            if found < 0:
                position += len(chunk)
                continue
            inside, skipped = True, found + 1
            if end is not None and position + skipped >= end:
                return
        if end is not None and position + len(chunk) >= end:
            found = chunk.find(b"\n", max(end - 1 - position, skipped))
            if found >= 0:
                yield chunk[skipped : found + 1]
                return
        position += len(chunk)
        yield chunk[skipped:]


def without_bom(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes less a byte order mark at their very beginning. Raises InputFailed (`compressed`) for gzip."""
    head = b""
    iterator = iter(chunks)
    for chunk in iterator:
        head += chunk
        if len(head) >= len(BOM):
            break
    if head.startswith(GZIP):
        raise InputFailed("compressed", "the file is compressed (gzip), which a CSV may not be: unpack it first")
    yield head.removeprefix(BOM)
    yield from iterator


def blocks(chunks: Iterable[bytes], *, multiline: bool, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Blocks of whole rows, few of them and none empty, that joined are the bytes of `chunks`.

    Raises InputFailed (`row_too_long`) where one row is longer than LONGEST_ROW.
    """
    pending: list[bytes] = []
    held = 0
    for chunk in chunks:
        offset = 0
        while offset < len(chunk):
            # Rows with quotes are looked at from their beginning again: what is added is no less than what is held.
            end = _end_of_piece(chunk, offset, block_bytes, held if multiline else 0)
            if multiline:
                block = b"".join([*pending, memoryview(chunk)[offset:end]])
                cut = _last_record_end(block)
                block, pending = block[:cut], [block[cut:]]
            else:
                cut = chunk.rfind(b"\n", offset, end) + 1 or offset
                block = b"".join([*pending, memoryview(chunk)[offset:cut]]) if cut > offset else b""
                pending = [chunk[cut:end]] if block else [*pending, chunk[offset:end]]
            if block:
                yield block
            offset = end
            held = sum(map(len, pending))
            if held > LONGEST_ROW:
                raise InputFailed("row_too_long", f"a row is longer than {LONGEST_ROW // 2**20} MiB")
    if held:
        yield b"".join(pending)


def _end_of_piece(chunk: bytes, offset: int, most: int, least: int) -> int:
    """Where `most` bytes from `offset` on end, or MOST_ROWS line ends where these are fewer, but not under `least`."""
    piece = memoryview(chunk)[offset : offset + most]
    rows_end = csv_regular.end_of_lines(piece, MOST_ROWS) if len(piece) > MOST_ROWS else len(piece)
    return min(offset + max(least, rows_end), offset + len(piece))


def rows(block: bytes, *, multiline: bool) -> list[bytes]:
    """The rows of a block, without the line ends that end them."""
    return list(records(block)) if multiline and b'"' in block else lines(block)


def records(block: bytes) -> Iterator[bytes]:
    """The rows of a block whose quoted fields may hold line ends, without the line ends that end them."""
    position = 0
    while position < len(block):
        match = _RECORD.match(block, position)
        assert match is not None  # the expression matches the empty row
        position = match.end()
        if match.group(1):
            yield without_line_end(match.group())
        else:
            yield match.group()


def lines(block: bytes) -> list[bytes]:
    """The rows of a block whose rows end at every line end, without the line ends."""
    rows = block.split(b"\n")
    last = rows.pop()
    rows = [row.removesuffix(b"\r") for row in rows] if b"\r" in block else rows
    return [*rows, last] if last else rows


def first_row(block: bytes, *, multiline: bool) -> tuple[bytes, bytes]:
    """(the first row with its line end, the rest)."""
    if multiline and b'"' in block:
        match = _RECORD.match(block)
        end = match.end() if match else 0
    else:
        end = block.find(b"\n") + 1 or len(block)
    return block[:end], block[end:]


def first_rows(block: bytes, count: int, *, multiline: bool) -> bytes:
    """The first few rows with their line ends."""
    taken: list[bytes] = []
    rest = block
    while rest and len(taken) < count:
        row, rest = first_row(rest, multiline=multiline)
        taken.append(row)
    return b"".join(taken)


def without_line_end(row: bytes) -> bytes:
    return row[:-1].removesuffix(b"\r") if row.endswith(b"\n") else row


def _last_record_end(block: bytes) -> int:
    if b'"' not in block:
        return block.rfind(b"\n") + 1
    if (end := csv_regular.last_row_end(block)) is not None:
        return end
    position = 0
    while position < len(block):
        match = _RECORD.match(block, position)
        if match is None or not match.group(1):
            break
        position = match.end()
    return position
