"""The input list: every object below a folder, or every line of an input manifest, read as a stream."""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import orjson

from batch_pipeline.errors import (
    AccessDenied,
    InputFailed,
    InputMissing,
    ObjectNotFound,
    OddName,
    PreconditionFailed,
)
from batch_pipeline.locations import Location, Source, source_name
from batch_pipeline.manifest import BOM, LONGEST_LINE, LineTooLong, content_identity, parse_line
from batch_pipeline.manifest_columns import blocks, columns
from batch_pipeline.storage import ObjectInfo, Storage

if TYPE_CHECKING:
    import polars as pl

LISTED_AT_ONCE = 10_000


@dataclass(frozen=True)
class Input:
    """One input: one key of the folder, or one line of the manifest.

    `line` counts from 1 (manifest lines as an editor shows them; keys of the folder in order). `name` is what its
    result is named after: the path below the folder, or the file name. `content` is what of it makes the input list.
    """

    line: int
    source: Source | None
    token: bytes
    digest: bytes
    name: str
    content: bytes
    offset: int = 0
    """Where the manifest line begins, in bytes."""
    size: int | None = None
    etag: str | None = None
    error: InputFailed | None = None


@dataclass(frozen=True, order=True)
class OddlyNamed:
    """A file, or a folder with all that is in it, below a local folder, with a name that is not UTF-8."""

    path: bytes
    """Without its leading `/`."""

    def input(self, line: int) -> Input:
        """One that has failed. Its source is shown with the odd bytes escaped, and its digest is of the bytes."""
        shown = "file:///" + self.path.decode("utf-8", "backslashreplace")
        error = InputFailed("bad_name", "its name is not UTF-8, so that nothing can name it; rename it")
        digest = hashlib.sha256(b"file:///" + self.path).digest()
        return Input(line, None, orjson.dumps(shown), digest, "", b"odd\0" + self.path, error=error)


@dataclass(frozen=True)
class InputList:
    """Where the inputs are listed. Iterating reads storage anew each time.

    `etag` is what the manifest must still be (None: whatever it is; always None for a folder).
    """

    storage: Storage
    location: Location
    allow_local: bool = False
    etag: str | None = None

    @property
    def is_manifest(self) -> bool:
        return not self.location.is_folder

    def read(self, *, offset: int = 0, line: int = 1, only: Iterable[int] | None = None) -> Iterator[Input]:
        """The inputs in order; a manifest from the byte `offset`, where line `line` begins.

        `only`: the lines of a manifest that are wanted, in order; no other is looked at, and none after the last.
        Raises InputMissing where the location is not there or can't be read.
        """
        with self._said():
            if self.is_manifest:
                yield from self._manifest(offset, line, only)
            else:
                yield from self._folder()

    def columns(self) -> Iterator[pl.DataFrame]:
        """All inputs as frames of a few MiB: the columns of manifest_columns.columns, and size and etag for a folder.

        Raises InputMissing as `read` does.
        """
        with self._said():
            yield from self._manifest_columns() if self.is_manifest else self._folder_columns()

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Says what is wrong with the input list, where storage only says what is wrong with an object."""
        try:
            yield
        except ObjectNotFound:
            what = "manifest" if self.is_manifest else "bucket"
            raise InputMissing(f"input_path {self.location}: there is no such {what}") from None
        except AccessDenied as error:
            raise InputMissing(f"input_path {self.location} can't be read: {error.message}") from error
        except PreconditionFailed:
            raise InputMissing(
                f"input_path {self.location} was rewritten while the service was reading it; run again"
            ) from None

    def _folder(self) -> Iterator[Input]:
        line = 0
        for info in self._listed():
            if isinstance(info, OddlyNamed):
                line += 1
                yield info.input(line)
                continue
            relative = info.location.key[len(self.location.key) :]
            if not relative or relative.endswith("/"):
                continue
            line += 1
            uri = info.location.uri.encode("utf-8", "surrogatepass")
            content = b"%s\0%d\0%s" % (uri, info.size, info.etag.encode())
            yield Input(
                line,
                info.location,
                orjson.dumps(info.location.uri),
                hashlib.sha256(uri).digest(),
                relative,
                content,
                size=info.size,
                etag=info.etag,
            )

    def _listed(self) -> Iterator[ObjectInfo | OddlyNamed]:
        """Every object, and in its place in order what on a disk has a name that is none."""
        odd: list[OddlyNamed] = []

        def note(location: Location, error: AccessDenied | OddName) -> None:
            if not isinstance(error, OddName):
                raise error
            heapq.heappush(odd, OddlyNamed(os.fsencode(location.key)))

        for info in self.storage.list(self.location, refused=note):
            while odd and odd[0].path < info.location.key.encode("utf-8", "surrogatepass"):
                yield heapq.heappop(odd)
            yield info
        while odd:
            yield heapq.heappop(odd)

    def _folder_columns(self) -> Iterator[pl.DataFrame]:
        import polars as pl

        items = self._folder()
        while found := list(islice(items, LISTED_AT_ONCE)):
            yield pl.DataFrame(
                {
                    "line": pl.Series([item.line for item in found], dtype=pl.UInt64),
                    "offset": pl.Series([0] * len(found), dtype=pl.UInt64),
                    "digest": pl.Series([item.digest for item in found], dtype=pl.Binary),
                    "key": pl.Series([item.digest for item in found], dtype=pl.Binary),
                    "same": pl.Series([item.digest for item in found], dtype=pl.Binary),
                    "name": pl.Series([item.name.encode("utf-8", "surrogatepass") for item in found], dtype=pl.Binary),
                    "bad": pl.Series([item.source is None for item in found], dtype=pl.Boolean),
                    "content": pl.Series([item.content for item in found], dtype=pl.Binary),
                    "size": pl.Series([item.size for item in found], dtype=pl.Int64),
                    "etag": pl.Series([item.etag for item in found], dtype=pl.String),
                }
            )

    def _manifest_columns(self) -> Iterator[pl.DataFrame]:
        offset, line = 0, 1
        with self.storage.open(self.location, if_match=self.etag) as stream:
            try:
                for block in blocks(iter(stream)):
                    found = columns(block, offset=offset, line=line, allow_local=self.allow_local)
                    if not found.is_empty():
                        yield found
                    offset += len(block)
                    line += block.count(b"\n")
            except LineTooLong:
                raise self._too_long(line) from None

    def _manifest(self, offset: int, line: int, only: Iterable[int] | None) -> Iterator[Input]:
        wanted = iter(only) if only is not None else None
        following = next(wanted, None) if wanted is not None else line
        if following is None:
            return
        with self.storage.open(self.location, start=offset, if_match=self.etag) as stream:
            try:
                for text in _lines(iter(stream)):
                    if following is None:
                        return
                    if line >= following:
                        stripped = (text.removeprefix(BOM) if offset == 0 else text).strip()
                        if stripped:
                            yield self._input(line, offset, stripped)
                        following = next(wanted, None) if wanted is not None else following
                    offset += len(text)
                    line += 1
            except LineTooLong:
                raise self._too_long(line) from None

    def _too_long(self, line: int) -> InputMissing:
        return InputMissing(
            f"input_path {self.location}, line {line}: the line has more than {LONGEST_LINE // 2**20} MiB, "
            "which is the most that a line of a manifest may have"
        )

    def _input(self, line: int, offset: int, text: bytes) -> Input:
        parsed = parse_line(text, allow_local=self.allow_local)
        return Input(
            line,
            parsed.source,
            parsed.token,
            hashlib.sha256(parsed.identity).digest(),
            source_name(parsed.source) if parsed.source is not None else "",
            content_identity(text, parsed),
            offset,
            error=parsed.error,
        )


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines with their line ends, whatever the chunks. Raises LineTooLong."""
    rest: list[bytes] = []
    length = 0
    for chunk in chunks:
        *whole, last = chunk.split(b"\n")
        for text in whole:
            rest.append(text)
            if length + len(text) > LONGEST_LINE:
                raise LineTooLong
            yield b"".join(rest) + b"\n"
            rest.clear()
            length = 0
        rest.append(last)
        length += len(last)
        if length > LONGEST_LINE:
            raise LineTooLong
    if text := b"".join(rest):
        yield text
