"""Manifest lines: one input manifest line read, one result or error line written. No storage here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import orjson

from batch_pipeline.documents import DEEPEST, is_too_deep
from batch_pipeline.errors import InputFailed, InvalidLocation
from batch_pipeline.locations import Location, ShareLink, Source, parse_source

LONGEST_LINE = 4 * 2**20
"""Bytes. Where a line has more, the manifest is refused, and nothing behind that is read."""
BOM = b"\xef\xbb\xbf"
_BLANK = " \t\r\n"


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=_refuse)


class LineTooLong(Exception):
    """A line has more than LONGEST_LINE bytes."""


@dataclass(frozen=True)
class ManifestLine:
    """One line of an input manifest.

    `token` is the JSON text of `source` exactly as written (`null` where there is none), so that an output
    manifest can repeat it byte for byte. `identity` is what stays the same when a share link is signed anew.
    """

    source: Source | None
    token: bytes
    identity: bytes
    error: InputFailed | None = None


def parse_line(line: bytes, *, allow_local: bool = False) -> ManifestLine:
    """Reads one manifest line (no line end, not blank). Never raises: a bad line carries its error."""
    try:
        record = _record(line)
    except orjson.JSONDecodeError as error:
        return _bad_line(line, b"null", f'the line is not JSON ({error}); it should be {{"source": "s3://…"}}')
    # As many levels need as many brackets, which most lines have not.
    if line.count(b"{") + line.count(b"[") > DEEPEST and is_too_deep(record):
        return _bad_line(line, b"null", f"the line is nested too deeply: more than {DEEPEST} levels")
    if not isinstance(record, dict):
        return _bad_line(
            line, b"null", f"the line is JSON, but {_kind(record)}; it should be an object with a `source`"
        )
    key = _source_key(record)
    if key is None or record[key] is None:
        return _bad_line(line, b"null", "the line has no `source`, the location of one file")
    text = record[key]
    if not isinstance(text, str) or isinstance(text, _Number):
        token = b"null" if _holds_number(text) else _token(line, key, text)
        return _bad_line(line, token, f"`source` is {_kind(text)}; it should be a string that names one file")
    token = _token(line, key, text)
    try:
        source = parse_source(text, allow_local=allow_local)
    except InvalidLocation as error:
        return ManifestLine(None, token, line, InputFailed("bad_source", error.message))
    if isinstance(source, Location):
        return ManifestLine(source, token, text.encode())
    return ManifestLine(source, token, source.identity.encode())


def content_identity(line: bytes, parsed: ManifestLine) -> bytes:
    """What of a line makes the service's input list: its bytes, a share link without its signing parameters."""
    if not isinstance(parsed.source, ShareLink):
        return line
    record: Any = _record(line)
    key = _source_key(record)
    return orjson.dumps({**record, key: parsed.identity.decode()}, option=orjson.OPT_SORT_KEYS)


def result_line(token: bytes, result: Location) -> bytes:
    return b'{"source": ' + token + b', "inference-loc": ' + orjson.dumps(result.uri) + b"}\n"


def error_line(
    token: bytes, code: str, message: str, *, line: int | None = None, failed_rows: int | None = None
) -> bytes:
    """One line of an error manifest: `line` for a bad manifest line, `failed_rows` for a CSV with row errors."""
    parts = [b'{"source": ' + token]
    if line is not None:
        parts.append(b'"line": %d' % line)
    parts.append(b'"error": ' + orjson.dumps({"code": code, "message": message}))
    if failed_rows is not None:
        parts.append(b'"failed_rows": %d' % failed_rows)
    return b", ".join(parts) + b"}\n"


def _record(line: bytes) -> object:
    """What the line says. Raises orjson.JSONDecodeError.

    JSON has numbers, of keys that nobody asks for, which orjson does not take: these come as `_Number`.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            record: object = _DECODER.decode(line.decode())
            orjson.dumps(record)
        except (ValueError, TypeError, RecursionError):
            # A lone surrogate, or too many levels, where not the line itself.
            raise error from None
        return record


def _holds_number(value: object) -> bool:
    """Whether orjson would not read it back."""
    if isinstance(value, dict | list):
        return any(map(_holds_number, value.values() if isinstance(value, dict) else value))
    return isinstance(value, _Number)


def _source_key(record: dict[str, Any]) -> str | None:
    if "source" in record:
        return "source"
    return next((key for key in record if key.strip() == "source"), None)


def _token(line: bytes, key: str, value: object) -> bytes:
    """The JSON text of the value of `key`, as it stands in the line."""
    plain = orjson.dumps(value)
    if b"\\" not in line and isinstance(value, str):
        return plain
    text = line.decode("utf-8")
    found = plain
    position = _skip(text, text.index("{") + 1)
    while text[position] != "}":
        name, position = _DECODER.raw_decode(text, position)
        position = _skip(text, _skip(text, position) + 1)
        _, end = _DECODER.raw_decode(text, position)
        if name == key:
            found = text[position:end].encode()
        position = _skip(text, end)
        if text[position] == ",":
            position = _skip(text, position + 1)
    return found


def _skip(text: str, position: int) -> int:
    while text[position] in _BLANK:
        position += 1
    return position


def _bad_line(line: bytes, token: bytes, message: str) -> ManifestLine:
    return ManifestLine(None, token, line, InputFailed("bad_line", message))


def _kind(value: object) -> str:
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        _Number: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "null")
