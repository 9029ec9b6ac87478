"""Services from a queue of bucket notifications: moto's queue, real objects, and runs that are made or are not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any
from urllib.parse import quote_plus
from uuid import uuid4

import boto3
import pytest
from moto.backends import get_backend

from batch_pipeline.errors import PreconditionFailed, QueueFailed, StateFailed
from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage
from batch_pipeline.triggers import notifications
from batch_pipeline.triggers.looking import Arrival, Look
from batch_pipeline.triggers.notifications import NotificationWatch
from batch_pipeline.triggers.template import service_name
from batch_pipeline_tests.conftest import S3Server


class Killed(BaseException):
    """The process ended here."""


@dataclass
class Scene:
    """A bucket, a queue, a watch on it, and the runs that were made of what it handed out."""

    endpoint: str
    bucket: str
    storage: Storage = field(default_factory=Storage)
    now: float = 1_800_000_000.0
    runs: dict[str, list[str]] = field(default_factory=dict)
    """For each run key what its manifest named."""
    cursor: str | None = None
    queue: str = ""

    def __post_init__(self) -> None:
        self.sqs = boto3.client("sqs", endpoint_url=self.endpoint, region_name="us-east-1")
        self.queue = self.queue or self.sqs.create_queue(QueueName=f"queue-{uuid4().hex[:12]}")["QueueUrl"]

    # --- what happens outside -----------------------------------------------------------------------------------

    def subscribe(self) -> None:
        """Has the store itself send notifications of every object."""
        arn = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        self.storage.connection.client.put_bucket_notification_configuration(
            Bucket=self.bucket,
            NotificationConfiguration={"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]},  # type: ignore[typeddict-item]
        )

    def put(self, key: str, text: str = "1") -> str:
        """Writes an object and returns its ETag; with no subscription nobody is told."""
        return self.storage.write(Location(self.bucket, key), text.encode())

    def send(self, body: object) -> None:
        self.sqs.send_message(QueueUrl=self.queue, MessageBody=body if isinstance(body, str) else json.dumps(body))

    def tell(self, key: str, etag: str | None, *, size: int = 1, name: str = "ObjectCreated:Put") -> None:
        self.send({"Records": [record(self.bucket, key, etag, size=size, name=name)]})

    def upload(self, key: str, text: str = '{"source": "s3://b/file"}') -> str:
        """Writes an object, and tells the queue."""
        etag = self.put(key, text)
        self.tell(key, etag, size=len(text))
        return etag

    def redeliver(self) -> None:
        """As after the visibility timeout: all that was received and not deleted is there again."""
        for message in self._messages:
            message.change_visibility(0)
        self._backend.pending_messages.clear()

    @property
    def messages(self) -> int:
        """How many messages the queue holds, received or not."""
        return len(self._messages)

    @property
    def _backend(self) -> Any:
        return get_backend("sqs")["123456789012"]["us-east-1"].get_queue(self.queue.rpartition("/")[2])

    @property
    def _messages(self) -> list[Any]:
        return self._backend._messages

    # --- the watch ----------------------------------------------------------------------------------------------

    def watch(self, **changes: Any) -> NotificationWatch:
        given: dict[str, Any] = {
            "storage": self.storage,
            "queue_url": self.queue,
            "folder": self.place("in/"),
            "state": self.place("state/"),
            "manifests": self.place("gathered/"),
            "name": "flowers",
            "settle_seconds": 0,
            "max_files": 1000,
            "wait_seconds": 0,
            "clock": lambda: self.now,
        }
        return NotificationWatch(**{**given, **changes})

    def place(self, key: str) -> Location:
        return Location(self.bucket, key)

    def requested(self, keys: Sequence[str]) -> list[str]:
        return [key for key in keys if key in self.runs]

    def look(self, **changes: Any) -> Look:
        """One look whose outcome is lost: no run, no cursor."""
        return self.watch(**changes).look(self.cursor, self.requested)

    def tick(self, **changes: Any) -> Look:
        """One look, and a run for each arrival that has none, as Dagster makes them."""
        look = self.look(**changes)
        assert len({arrival.run_key for arrival in look.arrivals}) == len(look.arrivals)
        for arrival in look.arrivals:
            self.launch(arrival)
        self.cursor = look.cursor
        return look

    def launch(self, arrival: Arrival) -> None:
        if arrival.run_key not in self.runs:
            lines = self.storage.read(arrival.location).splitlines()
            self.runs[arrival.run_key] = [json.loads(line)["source"] for line in lines]

    def uris(self, *keys: str) -> list[str]:
        return [self.place(key).uri for key in keys]

    @property
    def taken(self) -> list[str]:
        """The sources of all runs, in order; the own manifests' are their addresses."""
        return sorted(source for sources in self.runs.values() for source in sources)


def record(
    bucket: str, key: str, etag: str | None, *, size: int = 1, name: str = "ObjectCreated:Put"
) -> dict[str, Any]:
    found = {"key": quote_plus(key, safe="/"), "size": size, **({"eTag": etag} if etag else {})}
    return {"eventName": name, "s3": {"bucket": {"name": bucket}, "object": found}}


def bridged(bucket: str, key: str, etag: str) -> dict[str, Any]:
    detail = {"bucket": {"name": bucket}, "object": {"key": key, "size": 1, "etag": etag, "sequencer": "00"}}
    return {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}


@pytest.fixture
def scene(moto_bucket: str, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", moto_server.endpoint)
    return Scene(moto_server.endpoint, moto_bucket)


@pytest.fixture
def any_scene(bucket: str, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """The objects in each of the stores, the queue moto's."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", moto_server.endpoint)
    return Scene(moto_server.endpoint, bucket)


def test_what_the_store_itself_sends(scene: Scene) -> None:
    scene.subscribe()
    scene.put("in/a b+ü.csv")
    scene.put("in/sub/2.csv", "2")
    etag = scene.put("in/list 1.manifest", '{"source": "s3://other/file"}')
    scene.put("elsewhere/3.csv")

    look = scene.tick()

    assert [arrival.occasion.name for arrival in look.arrivals] == [
        service_name("list 1", "in/list 1.manifest", etag),
        service_name("flowers-00000000", "gathered/flowers-00000000.manifest", look.arrivals[1].etag),
    ]
    assert scene.taken == ["s3://other/file", *scene.uris("in/a b+ü.csv", "in/sub/2.csv")]
    assert "2 new files; 1 new manifest" in look.message
    # The store told of the gathered manifest and of the state, too: those are no input.
    assert not any(scene.tick().arrivals for _ in range(3))
    assert len(scene.runs) == 2


def test_all_stores_keep_the_state(any_scene: Scene) -> None:
    scene = any_scene
    scene.upload("in/1.csv")
    assert scene.tick().message == "1 new file; 1 file gathered"
    scene.upload("in/2.csv")
    assert scene.tick().message == "1 new file; 1 file gathered; 1 message deleted"
    assert scene.tick().message == "1 message deleted"
    assert scene.tick().message == "no new messages"
    assert scene.taken == scene.uris("in/1.csv", "in/2.csv")


def test_messages_are_deleted_once_their_run_exists(scene: Scene) -> None:
    scene.upload("in/1.csv")
    scene.upload("in/2.manifest")
    first = scene.look()
    assert len(first.arrivals) == 2
    assert scene.messages == 2
    assert scene.look().arrivals == first.arrivals
    assert scene.messages == 2

    scene.launch(first.arrivals[0])
    again = scene.look()
    assert again.arrivals == first.arrivals[1:]
    assert "1 manifest again, which got no run" in again.message
    assert scene.messages == 1

    scene.launch(first.arrivals[1])
    assert scene.look().arrivals == ()
    assert scene.messages == 0


def test_event_bridge_and_a_topic(scene: Scene) -> None:
    scene.send(bridged(scene.bucket, "in/50%+1.csv", scene.put("in/50%+1.csv")))
    inner = {"Records": [record(scene.bucket, "in/2.csv", scene.put("in/2.csv"))]}
    scene.send({"Type": "Notification", "Message": json.dumps(inner)})
    scene.tick()
    assert scene.taken == scene.uris("in/2.csv", "in/50%+1.csv")


def test_files_wait_until_they_are_quiet(scene: Scene) -> None:
    scene.upload("in/1.csv")
    assert scene.tick(settle_seconds=60).message == "1 new file; 1 file wait to be quiet for 60 s, or for more"
    scene.now += 59
    scene.upload("in/2.csv")
    assert scene.tick(settle_seconds=60).arrivals == ()
    scene.now += 59
    assert scene.tick(settle_seconds=60).arrivals == ()
    assert scene.messages == 2
    scene.now += 1
    assert len(scene.tick(settle_seconds=60).arrivals) == 1
    assert scene.taken == scene.uris("in/1.csv", "in/2.csv")


def test_a_clock_that_was_set_back_holds_nothing_up(scene: Scene) -> None:
    scene.upload("in/1.csv")
    scene.tick(settle_seconds=60)
    scene.now -= 86_400
    assert len(scene.tick(settle_seconds=60).arrivals) == 1


def test_full_manifests_do_not_wait(scene: Scene) -> None:
    for index in range(5):
        scene.upload(f"in/{index}.csv")
    look = scene.tick(settle_seconds=60, max_files=2)
    assert [len(scene.runs[arrival.run_key]) for arrival in look.arrivals] == [2, 2]
    scene.upload("in/large.csv", "1" * 1000)
    look = scene.tick(settle_seconds=60, max_bytes=1000)
    assert len(look.arrivals) == 2  # what came before it does not fit in
    assert len(scene.taken) == 6


def test_no_more_arrivals_than_one_look_may_have(scene: Scene) -> None:
    for index in range(7):
        scene.upload(f"in/{index}.manifest", f'{{"source": "s3://b/{index}"}}')
    assert [len(scene.tick(most=3).arrivals) for _ in range(4)] == [3, 3, 1, 0]
    assert scene.taken == [f"s3://b/{index}" for index in range(7)]
    assert scene.messages == 0


def test_a_backlog_drains_over_looks(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "_RECEIVES", 2)
    monkeypatch.setattr(notifications, "_DELETED", 30)
    for index in range(45):
        scene.upload(f"in/{index}")
    assert scene.tick().message.startswith("20 new files; 20 files wait")
    assert scene.tick().message.startswith("20 new files; 40 files wait")
    assert len(scene.tick().arrivals) == 1
    assert len(scene.taken) == 45
    assert [scene.tick().message for _ in range(2)] == ["30 messages deleted", "15 messages deleted"]


def test_no_more_is_in_hand_than_may_be(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "_KEPT", 10)
    for index in range(25):
        scene.upload(f"in/{index}")
    looks = [scene.tick(settle_seconds=60) for _ in range(4)]
    assert [len(look.arrivals) for look in looks] == [1, 1, 0, 0]
    assert "5 files wait to be quiet" in looks[3].message
    assert (len(scene.taken), scene.messages) == (20, 5)


def test_an_object_told_of_twice_is_taken_once(scene: Scene) -> None:
    etag = scene.upload("in/1.csv")
    scene.tell("in/1.csv", etag)
    manifest = scene.upload("in/2.manifest")
    scene.tell("in/2.manifest", manifest)
    scene.tick()
    scene.tell("in/1.csv", etag)
    scene.tick()
    scene.tell("in/1.csv", etag)
    scene.tell("in/2.manifest", manifest)
    scene.redeliver()
    scene.tick()
    assert len(scene.runs) == 2
    assert scene.messages == 0


def test_a_message_that_comes_again_is_known(scene: Scene) -> None:
    scene.upload("in/1.csv")
    for _ in range(3):
        scene.tick(settle_seconds=60)
        scene.redeliver()
    scene.now += 60
    scene.tick(settle_seconds=60)
    scene.redeliver()
    scene.tick()
    assert scene.taken == scene.uris("in/1.csv")
    assert scene.messages == 0


def test_a_message_deleted_too_late_to_count_is_known_for_fifteen_days(scene: Scene) -> None:
    etag = scene.upload("in/1.csv")
    scene.tick()
    scene.tick()
    scene.now += 14 * 86_400
    scene.tell("in/1.csv", etag)
    scene.upload("in/2.csv")
    scene.tick()
    scene.tick()
    assert scene.taken == scene.uris("in/1.csv", "in/2.csv")
    scene.now += 2 * 86_400
    scene.upload("in/3.csv")
    scene.tick()
    scene.tick()
    assert len(list(scene.storage.list(scene.place("state/taken/")))) == 2


def test_an_overwritten_file_counts_once_while_it_waits_and_again_later(scene: Scene) -> None:
    scene.upload("in/1.csv", "1")
    scene.upload("in/1.csv", "22")
    scene.tick()
    assert scene.taken == scene.uris("in/1.csv")
    scene.tick()
    assert scene.messages == 0
    scene.upload("in/1.csv", "333")
    scene.tick()
    assert scene.taken == scene.uris("in/1.csv", "in/1.csv")


def test_of_events_out_of_order_the_version_that_is_there_counts(scene: Scene) -> None:
    old, new = scene.put("in/1.csv", "1"), scene.put("in/1.csv", "22")
    scene.tell("in/1.csv", new)
    scene.tell("in/1.csv", old)
    arrival = scene.tick().arrivals[0]
    assert [json.loads(line)["etag"] for line in scene.storage.read(arrival.location).splitlines()] == [new]
    scene.tick()
    scene.tell("in/1.csv", new)
    scene.tick()
    assert scene.taken == scene.uris("in/1.csv")


def test_a_manifest_rewritten_before_its_message_was_read_is_one_service(scene: Scene) -> None:
    scene.upload("in/1.manifest", '{"source": "s3://b/1"}')
    scene.upload("in/1.manifest", '{"source": "s3://b/2"}')
    scene.tick()
    scene.tick()
    assert scene.taken == ["s3://b/2"]
    assert scene.messages == 0


def test_a_manifest_rewritten_before_its_run_is_one_service(scene: Scene) -> None:
    scene.upload("in/1.manifest", '{"source": "s3://b/1"}')
    scene.look()
    scene.upload("in/1.manifest", '{"source": "s3://b/2"}')
    scene.tick()
    scene.tick()
    assert scene.taken == ["s3://b/2"]
    assert scene.messages == 0


def test_what_the_notification_does_not_say_is_asked_for(scene: Scene) -> None:
    scene.put("in/1.csv")
    scene.tell("in/1.csv", None)
    scene.tell("in/gone.csv", None)
    scene.tell("in/gone.manifest", "e" * 32)
    look = scene.tick()
    assert scene.taken == scene.uris("in/1.csv")
    assert "2 objects passed over: deleted since" in look.message
    assert scene.messages == 1


def test_a_manifest_that_is_deleted_before_its_run_is_passed_over(scene: Scene) -> None:
    scene.upload("in/1.manifest")
    scene.look()
    scene.storage.delete([scene.place("in/1.manifest")])
    assert scene.tick().message == "1 manifest passed over: deleted since; 1 message deleted"
    assert scene.messages == 0


def test_events_of_another_kind_and_objects_that_are_no_input_are_done_with(scene: Scene) -> None:
    scene.send({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": scene.bucket})
    scene.tell("in/1.csv", None, name="ObjectRemoved:Delete")
    scene.tell("in/folder/", "e" * 32)
    scene.tell("in/1.txt", "e" * 32)
    scene.tell("in/out/1.csv_result.txt", "e" * 32)
    assert scene.tick(pattern="*.csv", outputs=(scene.place("in/out/"),)).arrivals == ()
    assert scene.messages == 0


def test_messages_of_other_folders_are_left_alone(scene: Scene) -> None:
    etag = scene.upload("in/1.csv")
    for key in ("other/1.csv", "inside.csv", "in/2.csv", "other/3.csv"):
        scene.put(key, '{"source": "s3://b/file"}')
    scene.tell("other/1.csv", etag)
    scene.tell("inside.csv", etag)
    scene.tell("other/2.csv", None, name="ObjectRemoved:Delete")
    scene.send({"Records": [record(scene.bucket, "in/2.csv", etag), record(scene.bucket, "other/3.csv", etag)]})
    assert "4 messages left alone" in scene.tick().message
    for _ in range(3):
        scene.redeliver()
        scene.tick()
    assert scene.taken == scene.uris("in/1.csv", "in/2.csv")
    assert scene.messages == 4

    everything = Scene(scene.endpoint, scene.bucket, queue=scene.queue)
    everything.redeliver()
    everything.tick(folder=None, state=scene.place("state-2/"), manifests=scene.place("gathered-2/"))
    assert everything.taken == everything.uris("in/2.csv", "inside.csv", "other/1.csv", "other/3.csv")


def test_what_is_no_notification_blocks_nothing_and_is_named(scene: Scene) -> None:
    for _ in range(5):
        scene.send("hello")
    scene.tell("in/9.csv", None)
    scene.send({"Records": [record("no-such-bucket", "in/1.manifest", None)]})
    scene.upload("in/1.csv")
    look = scene.tick(folder=None)
    assert "6 messages left to the queue's redrive policy" in look.message
    assert "it is not JSON" in look.message
    assert "\n" not in look.message
    scene.tick(folder=None)
    assert scene.taken == scene.uris("in/1.csv")
    assert scene.messages == 6


def test_the_redrive_policy_puts_aside_what_is_no_notification_alone(scene: Scene) -> None:
    aside = Scene(scene.endpoint, scene.bucket)
    arn = scene.sqs.get_queue_attributes(QueueUrl=aside.queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "2"})
    scene.sqs.set_queue_attributes(QueueUrl=scene.queue, Attributes={"RedrivePolicy": policy})
    scene.send("hello")
    scene.upload("in/1.csv")
    for _ in range(4):
        scene.tick(settle_seconds=60)
        for message in scene._messages:
            if message.body == "hello":
                message.change_visibility(0)
    assert (aside.messages, scene.messages) == (1, 1)


@pytest.mark.parametrize("step", ["write", "delete", "hide"])
@pytest.mark.parametrize("count", range(4))
def test_killed_anywhere(scene: Scene, monkeypatch: pytest.MonkeyPatch, step: str, count: int) -> None:
    """The process ends before, or after, its n-th change of the store or the queue."""
    owner = "batch_pipeline.storage.Storage.write" if step == "write" else f"batch_pipeline.triggers.queue.Queue.{step}"
    for kill in (_before, _after):
        scene.upload(f"in/{kill.__name__}.csv")
        scene.upload(f"in/{kill.__name__}.manifest", f'{{"source": "s3://b/{kill.__name__}"}}')
        for _ in range(2):
            with monkeypatch.context() as patch:
                patch.setattr(owner, kill(_resolve(owner), count))
                try:
                    scene.tick()
                except Killed:
                    scene.redeliver()
        scene.tick()
        scene.tick()
        assert scene.messages == 0
    expected = ["s3://b/_after", "s3://b/_before", *scene.uris("in/_after.csv", "in/_before.csv")]
    assert scene.taken == sorted(expected)


def _resolve(path: str) -> Callable[..., Any]:
    from importlib import import_module

    module, owner, name = path.rsplit(".", 2)
    found: Callable[..., Any] = getattr(getattr(import_module(module), owner), name)
    return found


def _before(method: Callable[..., Any], count: int) -> Callable[..., Any]:
    calls = iter(range(1000))

    def killing(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == count:
            raise Killed
        return method(*args, **kwargs)

    return killing


def _after(method: Callable[..., Any], count: int) -> Callable[..., Any]:
    calls = iter(range(1000))

    def killing(*args: Any, **kwargs: Any) -> Any:
        done = method(*args, **kwargs)
        if next(calls) == count:
            raise Killed
        return done

    return killing


def test_two_looks_at_once_take_nothing_twice(scene: Scene) -> None:
    scene.upload("in/1.csv")
    scene.look(settle_seconds=60)
    scene.now += 60
    slow = scene.watch(settle_seconds=60)
    quick: list[Look] = []

    def meanwhile(keys: Sequence[str]) -> list[str]:
        if not quick:
            quick.append(scene.look(settle_seconds=60))
        return scene.requested(keys)

    scene.upload("in/2.manifest")
    scene.look(settle_seconds=60)  # so that the slow look asks for a run
    look = slow.look(scene.cursor, meanwhile)
    for arrival in (*look.arrivals, *quick[0].arrivals):
        scene.launch(arrival)
    scene.redeliver()
    scene.tick()
    scene.tick()
    assert len(scene.runs) == 2
    assert scene.messages == 0


def test_the_slower_of_two_looks_gives_way(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.upload("in/1.csv")

    def refused(*_: object, **__: object) -> str:
        raise PreconditionFailed("held.json is not, or no longer, the version it was asked for as")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", refused)
        look = scene.tick()
    assert look.arrivals == ()
    assert "another look is at work" in look.message


def test_a_lost_state_is_made_up_for_by_the_manifests(scene: Scene) -> None:
    scene.upload("in/1.csv")
    scene.tick()
    scene.upload("in/2.csv")
    scene.look()
    scene.storage.delete([info.location for info in scene.storage.list(scene.place("state/"))])
    scene.redeliver()
    look = scene.tick()
    assert "what was in hand is lost" in look.message
    scene.tick()
    assert scene.taken == scene.uris("in/1.csv", "in/2.csv")
    assert len(scene.runs) == 2
    assert scene.messages == 0


class Refusing(BaseHTTPRequestHandler):
    """A queue that lets nobody in; moto lets everybody."""

    def do_POST(self) -> None:
        body = b'{"__type": "com.amazon.coral.service#AccessDeniedException", "Message": "not you"}'
        self.send_response(403)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_refused_credentials_say_what_they_need(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(QueueFailed, match=r"credentials were refused .* they need sqs:ReceiveMessage"):
            scene.look()
        server.shutdown()


def test_what_a_queue_may_answer(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(QueueFailed, match="is no queue's URL"):
        scene.look(queue_url="flowers")
    with pytest.raises(QueueFailed, match="there is no such queue"):
        scene.look(queue_url=scene.queue + "-2")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:1")
    with pytest.raises(QueueFailed, match="can't be reached; check AWS_ENDPOINT_URL_SQS"):
        scene.look()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", scene.endpoint)
    scene.upload("in/1.csv")
    scene.tick()
    assert scene.taken == scene.uris("in/1.csv")


@pytest.mark.parametrize("damage", [b"", b"[1]", b'{"number": 1', b'{"number": "x"}', b"\xff"])
def test_a_damaged_state_says_what_to_do(scene: Scene, damage: bytes) -> None:
    scene.upload("in/1.csv")
    scene.tick()
    scene.storage.write(scene.place("state/held.json"), damage)
    with pytest.raises(StateFailed, match=r"state/held.json is damaged .*: delete it") as failed:
        scene.tick()
    assert "\n" not in str(failed.value)
    scene.storage.delete([scene.place("state/held.json")])
    scene.redeliver()
    for _ in range(3):
        scene.tick()
    assert scene.taken == scene.uris("in/1.csv")
    assert scene.messages == 0


@pytest.mark.parametrize("damage", [b"x", b"b" * 16 + b"a" * 16])
def test_damaged_memories_say_what_to_do(scene: Scene, damage: bytes) -> None:
    scene.upload("in/1.csv")
    scene.tick()
    scene.tick()
    (day,) = [info.location for info in scene.storage.list(scene.place("state/taken/"))]
    scene.storage.write(day, damage)
    scene.upload("in/2.csv")
    with pytest.raises(StateFailed, match=f"{day.name} is damaged .*: delete it"):
        scene.tick()


def test_a_state_that_was_left_elsewhere_is_found(scene: Scene) -> None:
    """With what was taken, what waits, what has no run, and a manifest that no state tells of."""
    for index in range(3):
        scene.upload(f"in/{index}.csv")
        scene.tick()
    scene.upload("in/3.csv")
    scene.cursor = scene.look().cursor
    scene.upload("in/4.csv")
    scene.tick(settle_seconds=60)
    scene.runs.popitem()
    moved = {"state": scene.place("b/state/"), "manifests": scene.place("b/gathered/")}
    scene.tell("in/0.csv", "e" * 32)
    for changes in (moved, {}, moved):
        assert "lost" not in scene.tick(**changes).message
        scene.redeliver()
        scene.upload("in/new.csv", f"{len(scene.runs)}")
        scene.tick(**changes)
    scene.redeliver()
    scene.tick(**moved)
    scene.tick(**moved)
    assert scene.taken == scene.uris(*(f"in/{index}.csv" for index in range(5)), *["in/new.csv"] * 3)
    assert scene.messages == 0


def test_a_state_that_is_gone_from_elsewhere_fails_the_look(scene: Scene) -> None:
    scene.upload("in/1.csv")
    scene.tick()
    scene.storage.delete([info.location for info in scene.storage.list(scene.place("state/"))])
    with pytest.raises(StateFailed, match=r"state/held.json, of which .* tells, is gone: set `state_path`"):
        scene.tick(state=scene.place("b/state/"), manifests=scene.place("b/gathered/"))


def test_an_older_cursor_whose_folder_has_another_name_by_now_takes_nothing(scene: Scene) -> None:
    """It names no folder. Where it is told which, the trigger goes on."""
    scene.upload("in/1.csv")
    scene.tick()
    assert scene.cursor is not None
    scene.cursor = scene.cursor.split()[0]
    with pytest.raises(StateFailed, match=r"b/state/held.json, of which .* tells, is gone: set `state_path`"):
        scene.tick(state=scene.place("b/state/"), manifests=scene.place("b/gathered/"))
    assert scene.tick().message == "1 message deleted"


def test_triggers_in_another_order_keep_what_they_have_in_hand(scene: Scene) -> None:
    other = {"folder": scene.place("other/"), "state": scene.place("state-2/"), "manifests": scene.place("gathered-2/")}
    scene.upload("in/1.csv")
    scene.tick(settle_seconds=60)
    ours, scene.cursor = scene.cursor, None
    scene.tick(**other)
    theirs = scene.cursor
    assert scene.tick(settle_seconds=60).message.startswith("1 file wait")
    scene.cursor = ours
    assert scene.tick(**other).message == "no new messages"
    scene.cursor = theirs
    scene.tick()
    assert scene.taken == scene.uris("in/1.csv")


def test_a_late_event_of_a_version_that_is_gone_takes_nothing(scene: Scene) -> None:
    old, new = scene.put("in/1.csv", "1"), scene.put("in/1.csv", "22")
    scene.tell("in/1.csv", new)
    scene.tick()
    scene.tick()
    scene.tell("in/1.csv", old)
    scene.tick()
    assert scene.taken == scene.uris("in/1.csv")
    assert scene.messages == 0


def test_manifests_written_before_are_read_some_at_a_time(scene: Scene) -> None:
    for index in range(40):
        line = f'{{"source": "s3://b/{index}", "etag": "e", "size": 1}}'.encode()
        scene.storage.write(scene.place(f"gathered/flowers-{index:08d}.manifest"), line)
    asked: list[int] = []

    def requested(keys: Sequence[str]) -> list[str]:
        asked.append(len(keys))
        return list(keys)

    scene.watch().look(None, requested)
    assert asked == [32, 8]
