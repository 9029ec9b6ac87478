"""One pass over the input list: who is in it, under which name each result will stand, and a digest of it all."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from batch_pipeline.errors import InputMissing
from batch_pipeline.inputs import Input, InputList
from batch_pipeline.layout import result_digest, result_name
from batch_pipeline.locations import Location, ShareLink

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Survey:
    """What one pass over the input list found. `table` has one row an input, in order:

    line, offset, digest (SHA-256 of the source), size and etag (None where unknown), duplicate_of (the line that
    lists the same source first), suffix (put into the result's name where another has it), result (digest of the
    result's name), bad (the line names no input), csv (its name ends in .csv).
    """

    table: pl.DataFrame
    digest: str
    """SHA-256 of the input list: what the service was made from."""

    @property
    def inputs(self) -> int:
        return self.table.height


def survey(inputs: InputList) -> Survey:
    """Reads the whole input list once. Raises InputMissing where there is no input at all."""
    import polars as pl

    lines, offsets = array("Q"), array("Q")
    digests: list[bytes] = []
    sizes: list[int | None] = []
    etags: list[str | None] = []
    duplicates: list[int | None] = []
    suffixes: list[str] = []
    results: list[bytes] = []
    bad, csv = array("b"), array("b")
    content = hashlib.sha256()
    names = _Names()
    for item in inputs.read():
        content.update(b"%d\0%d\0%s" % (item.line, len(item.content), item.content))
        suffix, duplicate_of, result = names.take(item)
        lines.append(item.line)
        offsets.append(item.offset)
        digests.append(item.digest)
        sizes.append(item.size)
        etags.append(item.etag)
        duplicates.append(duplicate_of)
        suffixes.append(suffix)
        results.append(result)
        bad.append(item.error is not None)
        csv.append(item.name.lower().endswith(".csv"))
    if not lines:
        what = "lists no input" if inputs.is_manifest else "holds no object"
        raise InputMissing(f"input_path {inputs.location} {what}; there is nothing to infer on")
    table = pl.DataFrame(
        {
            "line": pl.Series(lines, dtype=pl.UInt64),
            "offset": pl.Series(offsets, dtype=pl.UInt64),
            "digest": pl.Series(digests, dtype=pl.Binary),
            "size": pl.Series(sizes, dtype=pl.Int64),
            "etag": pl.Series(etags, dtype=pl.String),
            "duplicate_of": pl.Series(duplicates, dtype=pl.UInt64),
            "suffix": pl.Series(suffixes, dtype=pl.String),
            "result": pl.Series(results, dtype=pl.Binary),
            "bad": pl.Series(bad, dtype=pl.Int8).cast(pl.Boolean),
            "csv": pl.Series(csv, dtype=pl.Int8).cast(pl.Boolean),
        }
    )
    return Survey(table, content.hexdigest())


class _Names:
    """Gives each source its result's name, so that two different sources never share one."""

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[int, str, bytes]] = {}
        self._taken: set[bytes] = set()

    def take(self, item: Input) -> tuple[str, int | None, bytes]:
        """The suffix, the line of the same source's first mention, and the result's digest."""
        if item.error is not None:
            return "", None, b""
        key = item.digest if item.source is None or isinstance(item.source, Location) else _url_digest(item.source)
        known = self._first.get(key)
        if known is not None:
            line, suffix, result = known
            return suffix, line, result
        suffix = ""
        result = result_digest(result_name(item.name, suffix))
        length = 8
        while result in self._taken:
            suffix = "-" + hashlib.sha256(orjson.loads(item.token).encode()).hexdigest()[:length]
            result = result_digest(result_name(item.name, suffix))
            length += 8
        self._taken.add(result)
        self._first[key] = (item.line, suffix, result)
        return suffix, None, result


def _url_digest(link: ShareLink) -> bytes:
    """Two links to one object are two sources, which may have two outcomes."""
    return hashlib.sha256(link.url.encode()).digest()
