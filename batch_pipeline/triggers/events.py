"""What a bucket notification says: the body of a queue's message read into objects created. No queue or bucket here.

Read are Amazon S3's own notifications (`Records`, which Huawei OBS, Ceph and MinIO send too), EventBridge's
`Object Created`, and either inside the envelope of an SNS topic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

import orjson

from batch_pipeline.errors import BatchPipelineError, InvalidLocation
from batch_pipeline.locations import Location, parse_location

_CREATED = "ObjectCreated:"


@dataclass(frozen=True)
class ObjectEvent:
    """Something happened to an object: `created` (written or overwritten), or anything else.

    Which version it was does not matter: the store is asked what is there by now.
    """

    location: Location
    created: bool


@dataclass(frozen=True)
class Notification:
    """What one message says. It has no events where it is the store's test of the queue."""

    events: tuple[ObjectEvent, ...] = ()


@dataclass(frozen=True)
class NoNotification:
    """A message that is no bucket notification; `reason` says why, in a few words."""

    reason: str


class _Unreadable(BatchPipelineError):
    """Within this module: the reason of a NoNotification."""


def parse_body(body: str) -> Notification | NoNotification:
    """Reads the body of one message. Never raises: what can't be read says why."""
    try:
        return Notification(_events(_unwrapped(_object(body))))
    except _Unreadable as error:
        return NoNotification(error.message)


def _object(text: str) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _Unreadable(f"it is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise _Unreadable("it is JSON, but no object")
    return found


def _unwrapped(message: dict[str, Any]) -> dict[str, Any]:
    """The message inside an SNS envelope; any other message as it is."""
    inner = message.get("Message")
    if message.get("Type") != "Notification" or not isinstance(inner, str):
        return message
    return _object(inner)


def _events(message: dict[str, Any]) -> tuple[ObjectEvent, ...]:
    if "Records" in message:
        return tuple(_recorded(record) for record in _records(message["Records"]))
    if message.get("source") == "aws.s3" and "detail-type" in message:
        return (_bridged(message),)
    if message.get("Event") == "s3:TestEvent":
        return ()
    raise _Unreadable("it has neither `Records` nor the `source` and `detail-type` of an S3 event")


def _records(records: object) -> list[Any]:
    if not isinstance(records, list) or not records:
        raise _Unreadable("`Records` is no list of events")
    return records


def _recorded(record: object) -> ObjectEvent:
    """One of `Records`: its key is percent-encoded, with `+` for a blank."""
    name = record.get("eventName") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(name, str):
        raise _Unreadable("one of `Records` has no `eventName`")
    body = _member(record, "s3" if "s3" in record else "obs")
    found = _member(body, "object")
    created = name.removeprefix("s3:").startswith(_CREATED)
    return ObjectEvent(_location(_member(body, "bucket").get("name"), _decoded(found.get("key"))), created)


def _bridged(message: dict[str, Any]) -> ObjectEvent:
    """An event of EventBridge: its key is as it is."""
    detail = _member(message, "detail")
    found = _member(detail, "object")
    created = message["detail-type"] == "Object Created"
    return ObjectEvent(_location(_member(detail, "bucket").get("name"), found.get("key")), created)


def _location(bucket: object, key: object) -> Location:
    if not isinstance(bucket, str) or "/" in bucket or not isinstance(key, str) or not key:
        raise _Unreadable("one of its events names no bucket and key")
    try:
        return parse_location(f"s3://{bucket}/{key}", what="object")
    except InvalidLocation as error:
        raise _Unreadable(error.message) from None


def _decoded(key: object) -> object:
    try:
        return unquote_plus(key, errors="strict") if isinstance(key, str) else key
    except UnicodeDecodeError:
        raise _Unreadable("the key of one of its events is not percent-encoded UTF-8") from None


def _member(container: dict[str, Any], name: str) -> dict[str, Any]:
    found = container.get(name)
    if not isinstance(found, dict):
        raise _Unreadable(f"one of its events has no `{name}`")
    return found
