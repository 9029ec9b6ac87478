"""Looks for planted secrets in everything that an instance, a bucket and a process leave behind, however it is kept."""

from __future__ import annotations

import base64
import gzip
import io
import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage


@dataclass(frozen=True, order=True)
class Finding:
    """A secret, by its name, where it should not be."""

    where: str
    secret: str


class Scanner:
    """Knows the planted secrets, by name, in the forms in which they may be written."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        assert all(len(secret) >= 10 for secret in secrets.values()), "a short one is found by accident"
        self._forms = {name: _forms(secret) for name, secret in secrets.items()}

    def text(self, where: str, content: bytes | str) -> set[Finding]:
        data = content.encode() if isinstance(content, str) else content
        return {
            Finding(where, name)
            for view in _views(data)
            for name, forms in self._forms.items()
            if any(form in view for form in forms)
        }

    def folder(self, root: Path) -> set[Finding]:
        """Every file below a folder, and every cell of its databases; a file's own name, too."""
        found: set[Finding] = set()
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            where = path.relative_to(root).as_posix()
            found |= self.text(where, where) | self.text(where, path.read_bytes())
            if path.suffix == ".db":
                for cell in _cells(path):
                    found |= self.text(where, cell)
        return found

    def bucket(self, storage: Storage, bucket: str) -> set[Finding]:
        """Every object of a bucket, and its key."""
        found: set[Finding] = set()
        for info in storage.list(Location(bucket, "")):
            key = info.location.key
            found |= self.text(key, key) | self.text(key, storage.read(info.location))
        return found


def _forms(secret: str) -> set[bytes]:
    """As it is, quoted for an address (once and twice), for JSON, in hexadecimal, and within Base64."""
    texts = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}
    texts |= {quote(text, safe="") for text in texts} | {text.replace("\\", "\\\\") for text in texts}
    raw = secret.encode()
    plain = {text.encode() for text in texts} | {raw.hex().encode(), raw.hex().upper().encode()}
    for text in [raw, quote(secret, safe="").encode()]:
        for shift in range(3):
            # What stands before and after it decides the first and the last digits.
            inner = base64.b64encode(bytes(shift) + text)[4 if shift else 0 :].rstrip(b"=")[:-1]
            plain |= {inner, inner.translate(bytes.maketrans(b"+/", b"-_"))}
    return plain


def _views(data: bytes) -> Iterator[bytes]:
    """The bytes as they are and, where they are packed, what is in them."""
    yield data
    if data[:4] == b"PAR1":
        import polars as pl

        for row in pl.read_parquet(io.BytesIO(data)).iter_rows():
            yield repr(row).encode()
            yield b"\n".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in row)
    unpacked = data
    try:
        unpacked = base64.b64decode(data, validate=True)
        yield unpacked
    except ValueError:
        pass
    for unpack in (zlib.decompress, gzip.decompress):
        try:
            yield unpack(unpacked)
        except (OSError, EOFError, zlib.error):
            continue


def _cells(database: Path) -> Iterator[bytes]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.text_factory = bytes
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in connection.execute(f'SELECT * FROM "{table.decode()}"'):
                yield from (cell for cell in row if isinstance(cell, bytes))
