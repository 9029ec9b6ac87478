"""The objects of a listing, read from the store's XML at once: botocore takes some 30 µs for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.etree import ElementTree as ET

from botocore.parsers import ResponseParser, ResponseParserFactory, RestXMLParser

_LISTING = "ListObjectsV2Output"


class ListingParsers(ResponseParserFactory):
    """botocore's parsers of answers, but for the objects of a listing. A component of its session.

    They read the times of a listing with `read_time`.
    """

    def __init__(self, read_time: Callable[[Any], Any]) -> None:
        super().__init__()
        self._read_time = read_time
        # A listing is mostly times, which the usual parser takes most of the listing's time to read.
        self.set_parser_defaults(timestamp_parser=read_time)

    def create_parser(self, protocol_name: str) -> ResponseParser:
        """The parser of a protocol's answers."""
        if protocol_name == "rest-xml":
            return _ListingParser(self._read_time)
        parser: ResponseParser = super().create_parser(protocol_name)
        return parser


class _ListingParser(RestXMLParser):
    def __init__(self, read_time: Callable[[Any], Any]) -> None:
        super().__init__(timestamp_parser=read_time)
        self._read_time = read_time

    def _do_parse(self, response: Mapping[str, Any], shape: Any) -> Any:
        """All but the objects is botocore's to read, and so is what is no XML."""
        read: Any = super()
        root = _xml(response["body"]) if shape is not None and shape.name == _LISTING else None
        if root is None:
            return read._do_parse(response, shape)
        objects = [child for child in root if _name(child) == "Contents"]
        root[:] = [child for child in root if _name(child) != "Contents"]
        # A parser takes a bare CR for a line end; a token that goes on after a key may hold one.
        rest = ET.tostring(root).replace(b"\r", b"&#13;")
        parsed = read._do_parse({**response, "body": rest}, shape)
        if objects:
            parsed["Contents"] = list(self._read(objects))
        return parsed

    def _read(self, objects: list[ET.Element]) -> Iterator[dict[str, Any]]:
        """What this package asks of an object, by the names that botocore gives it."""
        prefix = objects[0].tag.removesuffix("Contents")
        key, size, etag, modified = (f"{prefix}{name}" for name in ("Key", "Size", "ETag", "LastModified"))
        for one in objects:
            fields = {field.tag: field.text or "" for field in one}
            yield {
                "Key": fields[key],
                "Size": int(fields[size]),
                "ETag": fields[etag],
                "LastModified": self._read_time(fields[modified]),
            }


def _xml(body: bytes) -> ET.Element | None:
    try:
        # The store is the deployment's own, and botocore reads it so.
        return ET.fromstring(body)  # noqa: S314
    except ET.ParseError:
        return None


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]
