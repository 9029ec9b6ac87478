"""Bodies of messages, as the stores send them and as they may be broken."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipeline.locations import Location
from batch_pipeline.triggers.events import NoNotification, Notification, ObjectEvent, parse_body

KEY = "in/a b+ü 1.csv"
WHERE = Location("test-bucket", KEY)
ETAG = "9dd4e461268c8034f5c8564e155c67a6"


def recorded(name: str = "ObjectCreated:Put", inside: str = "s3", **changes: Any) -> dict[str, Any]:
    """One of `Records`, as Amazon S3 writes it."""
    found = {"key": "in/a+b%2B%C3%BC+1.csv", "size": 7, "eTag": ETAG, "sequencer": "0055AED6DCD90281E5", **changes}
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-west-1",
        "eventTime": "2026-11-23T03:24:10.112Z",
        "eventName": name,
        inside: {"configurationId": "all", "bucket": {"name": "test-bucket"}, "object": found},
    }


def bridged(kind: str = "Object Created", **changes: Any) -> dict[str, Any]:
    """What EventBridge sends."""
    found = {"key": KEY, "size": 7, "etag": ETAG, "version-id": "v1", "sequencer": "00617F08299329D189", **changes}
    return {
        "version": "0",
        "detail-type": kind,
        "source": "aws.s3",
        "time": "2026-11-23T03:24:10Z",
        "detail": {"version": "0", "bucket": {"name": "test-bucket"}, "object": found, "reason": "PutObject"},
    }


def in_envelope(message: dict[str, Any]) -> dict[str, Any]:
    return {"Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:…", "Message": json.dumps(message)}


CREATED = Notification((ObjectEvent(WHERE, True),))
REMOVED = Notification((ObjectEvent(WHERE, False),))


@pytest.mark.parametrize("wrap", [dict, in_envelope], ids=["raw", "from a topic"])
@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"Records": [recorded()]}, CREATED),
        ({"Records": [recorded("ObjectCreated:CompleteMultipartUpload")]}, CREATED),
        ({"Records": [recorded("s3:ObjectCreated:Put")]}, CREATED),
        ({"Records": [recorded(inside="obs")]}, CREATED),
        ({"Records": [recorded(eTag=f'"{ETAG}"')]}, CREATED),
        ({"Records": [recorded("ObjectRemoved:Delete", eTag=None, size=None)]}, REMOVED),
        ({"Records": [recorded("ObjectTagging:Put", eTag=None, size=None)]}, REMOVED),
        (bridged(), CREATED),
        (bridged("Object Deleted", etag=None, size=None), REMOVED),
        ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "test-bucket"}, Notification()),
    ],
)
def test_shapes(wrap: Any, message: dict[str, Any], expected: Notification) -> None:
    assert parse_body(json.dumps(wrap(message))) == expected


def test_only_the_keys_of_records_are_encoded() -> None:
    assert parse_body(json.dumps(bridged(key="in/100%25+1"))) == Notification(
        (ObjectEvent(Location("test-bucket", "in/100%25+1"), True),)
    )
    assert parse_body(json.dumps({"Records": [recorded(key="in/100%2525%2B1")]})) == Notification(
        (ObjectEvent(Location("test-bucket", "in/100%25+1"), True),)
    )


def test_several_records_in_one_message() -> None:
    message = {"Records": [recorded(), recorded("ObjectRemoved:Delete", eTag=None, size=None)]}
    assert parse_body(json.dumps(message)) == Notification(CREATED.events + REMOVED.events)


@pytest.mark.parametrize("changes", [{"eTag": None}, {"eTag": 5}, {"size": -1}, {"size": "7"}, {"size": 1e300}])
def test_what_is_beside_bucket_and_key_does_not_matter(changes: dict[str, Any]) -> None:
    assert parse_body(json.dumps({"Records": [recorded(**changes)]})) == CREATED


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "it is not JSON"),
        ("hello", "it is not JSON"),
        ("\ud800", "it is not JSON"),
        ("[1]", "it is JSON, but no object"),
        ("{}", "neither `Records` nor"),
        (json.dumps({"source": "aws.ec2", "detail-type": "Object Created", "detail": {}}), "neither `Records` nor"),
        (json.dumps({"Type": "SubscriptionConfirmation", "Message": "…"}), "neither `Records` nor"),
        (json.dumps({"Type": "Notification", "Message": "hello"}), "it is not JSON"),
        (json.dumps(in_envelope(in_envelope({"Records": [recorded()]}))), "neither `Records` nor"),
        (json.dumps({"Records": []}), "`Records` is no list of events"),
        (json.dumps({"Records": {}}), "`Records` is no list of events"),
        (json.dumps({"Records": ["x"]}), "one of `Records` has no `eventName`"),
        (json.dumps({"Records": [{"eventName": "ObjectCreated:Put"}]}), "one of its events has no `obs`"),
        (json.dumps({"Records": [recorded(), recorded(key="")]}), "names no bucket and key"),
        (json.dumps({"Records": [recorded(key=5)]}), "names no bucket and key"),
        (json.dumps({"Records": [recorded(key="%ff")]}), "not percent-encoded UTF-8"),
        (json.dumps({"Records": [recorded(key="x" * 1025)]}), "1024 is the most"),
        (json.dumps({**bridged(), "detail": {"bucket": {"name": "a/b"}, "object": {"key": "k"}}}), "no bucket and key"),
        (json.dumps({**bridged(), "detail": {"bucket": {"name": "!!"}, "object": {"key": "k"}}}), "no valid bucket"),
        (json.dumps({**bridged(), "detail": None}), "one of its events has no `detail`"),
    ],
)
def test_what_is_no_notification_says_why(body: str, reason: str) -> None:
    found = parse_body(body)
    assert isinstance(found, NoNotification)
    assert reason in found.reason
    assert "\n" not in found.reason


@given(st.text(min_size=1, max_size=60))
def test_any_key_is_read_back(key: str) -> None:
    in_records = parse_body(json.dumps({"Records": [recorded(key=quote_plus(key))]}))
    in_bridge = parse_body(json.dumps(bridged(key=key)))
    assert in_records == in_bridge == Notification((ObjectEvent(Location("test-bucket", key), True),))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def broken(draw: st.DrawFn) -> str:
    """A notification with one of its members, at any depth, replaced, removed or given a neighbour."""
    message = draw(st.sampled_from([{"Records": [recorded()]}, bridged(), in_envelope(bridged())]))
    message = json.loads(json.dumps(message))
    holder: Any = message
    while True:
        name = draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
        if not isinstance(holder[name], dict | list) or not holder[name] or draw(st.booleans()):
            break
        holder = holder[name]
    if draw(st.booleans()):
        del holder[name]
    else:
        holder[name] = draw(JSON)
    return json.dumps(message)


@given(broken() | JSON.map(json.dumps) | st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_whatever_comes_is_read_or_refused(body: str) -> None:
    found = parse_body(body)
    if isinstance(found, Notification):
        assert all(event.location.bucket and event.location.key for event in found.events)
    else:
        assert found.reason
