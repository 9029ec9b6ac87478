"""The objects of a listing are what botocore's own parser finds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

import pytest
from botocore.parsers import ResponseParserError, ResponseParserFactory
from botocore.session import get_session
from hypothesis import given
from hypothesis import strategies as st

from batch_pipeline.storage.listings import ListingParsers

SHAPE = get_session().get_service_model("s3").operation_model("ListObjectsV2").output_shape
FIELDS = ("Key", "Size", "ETag", "LastModified")

objects = st.tuples(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.integers(0, 2**63),
    st.from_regex(r'"?[0-9a-f]{32}(-[0-9]{1,5})?"?', fullmatch=True),
    st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)),  # noqa: DTZ001
)


def listing(found: list[Any], *, namespace: str, truncated: bool) -> bytes:
    contents = "".join(
        f"<Contents><ETag>{escape(etag)}</ETag><Owner><ID>me</ID></Owner><Key>{quote(key)}</Key>"
        f"<LastModified>{modified.isoformat(timespec='milliseconds')}Z</LastModified><Size>{size}</Size></Contents>"
        for key, size, etag, modified in found
    )
    token = "<NextContinuationToken>a&amp;b&#13;&lt;é</NextContinuationToken>" if truncated else ""
    flag = f"<IsTruncated>{str(truncated).lower()}</IsTruncated>"
    root = f"ListBucketResult{namespace}"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><{root}><Name>b</Name>{contents}{flag}{token}</ListBucketResult>'
    ).encode()


def parse(factory: Any, body: bytes, status: int = 200) -> Any:
    return factory.create_parser("rest-xml").parse({"headers": {}, "status_code": status, "body": body}, SHAPE)


@given(
    st.lists(objects, max_size=4),
    st.sampled_from(["", ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"']),
    st.booleans(),
)
def test_it_reads_what_botocore_reads(found: list[Any], namespace: str, truncated: bool) -> None:
    body = listing(found, namespace=namespace, truncated=truncated)
    ours = parse(ListingParsers(lambda text: datetime.fromisoformat(text).astimezone(UTC)), body)
    theirs = parse(ResponseParserFactory(), body)
    wanted = [{name: one[name] for name in FIELDS} for one in theirs.pop("Contents", [])]
    assert ours.pop("Contents", []) == wanted
    assert ours == theirs


@pytest.mark.parametrize("body", [b"<ListBucketResult><Contents>", b"\x00", b"no xml"])
def test_what_is_no_xml_is_an_error(body: bytes) -> None:
    with pytest.raises(ResponseParserError):
        parse(ListingParsers(str), body)


def test_an_error_is_read_as_one() -> None:
    answer = parse(ListingParsers(str), b"<Error><Code>NoSuchBucket</Code><Message>gone</Message></Error>", 404)
    assert answer["Error"] == {"Code": "NoSuchBucket", "Message": "gone"}
