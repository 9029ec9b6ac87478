"""Manifest lines read many at once: plain ones by columns, all others one by one, to exactly the same effect."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from batch_pipeline.locations import MAX_KEY_BYTES, Location
from batch_pipeline.manifest import BOM, LONGEST_LINE, LineTooLong, content_identity, parse_line

if TYPE_CHECKING:
    import polars as pl

BLOCK_BYTES = 2 * 1024 * 1024
"""So much of a manifest is looked at at a time, up to a line end."""
_BLANKS = " \t\n\r\x0b\x0c"
"""What bytes.strip takes away."""
_PLAIN = (
    r'^\{[ \t]*"source"[ \t]*:[ \t]*"(?:s3|obs)://[A-Za-z0-9][A-Za-z0-9._-]{1,254}/'
    r'[^"\\\x00-\x1f]*[^"\\/\x00-\x1f]"[ \t]*\}$'
)
"""An object with `source` alone, which names an object of a bucket, with no escape."""


@dataclass(frozen=True)
class _Exact:
    """One line as parse_line has it, as columns need it."""

    digest: bytes
    key: bytes
    same: bytes
    name: bytes
    bad: bool
    content: bytes


def blocks(chunks: Iterable[bytes], size: int | None = None) -> Iterator[bytes]:
    """Whole lines, about `size` bytes at a time, whatever the chunks. Raises LineTooLong."""
    size = size or BLOCK_BYTES
    held: list[bytes] = []
    length = 0
    for chunk in chunks:
        for begin in range(0, len(chunk), size):
            piece = chunk[begin : begin + size]
            end = piece.rfind(b"\n") + 1
            if end:
                _check(length + piece.index(b"\n"))
                yield b"".join([*held, piece[:end]])
                held, length = [], 0
            if end < len(piece):
                held.append(piece[end:])
                length += len(held[-1])
                _check(length)
    if rest := b"".join(held):
        yield rest


def _check(length: int) -> None:
    if length > LONGEST_LINE:
        raise LineTooLong


def columns(block: bytes, *, offset: int, line: int, allow_local: bool) -> pl.DataFrame:
    """The lines of a block that are not blank, as a frame: line, offset (of its first byte), digest (SHA-256 of the
    source), key (SHA-256 of the source, a share link's signature included), same (what all spellings of a source have
    in common), name (of the file, UTF-8), bad, content (what of the line makes the input list). `offset` and `line`
    are those of the block's beginning.
    """
    import polars as pl

    texts = _texts(block, begin=len(BOM) if offset == 0 and block.startswith(BOM) else 0)
    frame = pl.DataFrame({"content": texts.content}).with_columns(
        line=pl.int_range(line, line + len(texts.content), dtype=pl.UInt64),
        offset=texts.offset.cast(pl.UInt64) + offset,
        plain=texts.plain,
    )
    frame = frame.filter(pl.col("content").bin.size() > 0)
    exact = frame.filter(~pl.col("plain"))
    if exact.is_empty():
        return _of_plain(frame)
    found = [_exact(content, allow_local) for content in exact["content"].to_list()]
    rest = exact.select("line", "offset").with_columns(
        digest=pl.Series([one.digest for one in found], dtype=pl.Binary),
        key=pl.Series([one.key for one in found], dtype=pl.Binary),
        same=pl.Series([one.same for one in found], dtype=pl.Binary),
        name=pl.Series([one.name for one in found], dtype=pl.Binary),
        bad=pl.Series([one.bad for one in found], dtype=pl.Boolean),
        content=pl.Series([one.content for one in found], dtype=pl.Binary),
    )
    if exact.height == frame.height:
        return rest
    return pl.concat([_of_plain(frame.filter("plain")), rest]).sort("line")


@dataclass(frozen=True)
class _Texts:
    """Every line of a block, blank ones too: where it begins, itself without blanks around it, and if it is plain."""

    offset: pl.Series
    content: pl.Series
    plain: pl.Series


def _texts(block: bytes, begin: int) -> _Texts:
    import numpy as np
    import polars as pl
    import pyarrow as pa

    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1
    if not block.endswith(b"\n"):
        ends = np.append(ends, len(block))
    bounds = np.concatenate([[begin], ends]).astype(np.int64)
    offset = pl.Series(np.concatenate([[0], ends[:-1]]))
    try:
        block.decode()
    except UnicodeDecodeError:
        found = [block[start:end].strip() for start, end in pairwise(bounds.tolist())]
        content = pl.Series(found, dtype=pl.Binary)
        return _Texts(offset, content, pl.repeat(False, len(found), dtype=pl.Boolean, eager=True))
    array = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(bounds), pa.py_buffer(block))
    text = pl.Series(array).str.strip_chars(_BLANKS)
    # A key may be no longer than the whole line is, so that one is not looked at.
    plain = text.str.contains(_PLAIN) & (text.str.len_bytes() <= MAX_KEY_BYTES)
    return _Texts(offset, text.cast(pl.Binary), plain)


def _of_plain(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    # In {"source": "…"} the source follows the third quotation mark, and has none in it.
    source = frame["content"].cast(pl.String).str.split('"').list.get(3)
    texts = source.cast(pl.Binary).to_list()
    digest = pl.Series([hashlib.sha256(one).digest() for one in texts], dtype=pl.Binary)
    same = digest
    if source.str.starts_with("obs://").any():
        own = [hashlib.sha256(b"s3" + one.removeprefix(b"obs").removeprefix(b"s3")).digest() for one in texts]
        same = pl.Series(own, dtype=pl.Binary)
    return frame.select(
        "line",
        "offset",
        digest=digest,
        key=digest,
        same=same,
        name=source.str.split("/").list.last().cast(pl.Binary),
        bad=pl.lit(False),
        content="content",
    )


def _exact(line: bytes, allow_local: bool) -> _Exact:
    parsed = parse_line(line, allow_local=allow_local)
    digest = hashlib.sha256(parsed.identity).digest()
    if parsed.source is None:
        return _Exact(digest, digest, digest, b"", True, line)
    # Two links to one object are two sources, which may have two outcomes.
    source = parsed.source
    if isinstance(source, Location):
        key, same = digest, hashlib.sha256(source.uri.encode("utf-8", "surrogatepass")).digest()
    else:
        key = same = hashlib.sha256(source.url.encode()).digest()
    name = source.name.encode("utf-8", "surrogatepass")
    return _Exact(digest, key, same, name, False, content_identity(line, parsed))
