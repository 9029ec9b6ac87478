"""The sensor of a queue of bucket notifications: real messages of a real store, down to the runs it asks for."""

from __future__ import annotations

import json
import os

import boto3
import pytest
from dagster._utils.error import serializable_error_info_from_exc_info

from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.requests import TickFailed
from batch_pipeline.storage import Storage
from batch_pipeline.triggers.settings import NotificationTrigger
from batch_pipeline_tests.faults.scanner import Scanner
from batch_pipeline_tests.orchestration.ticks import Sensor

pytestmark = pytest.mark.server


@pytest.fixture
def s3(moto_bucket):
    return boto3.client("s3")


@pytest.fixture
def sqs(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", os.environ["AWS_ENDPOINT_URL_S3"])
    return boto3.client("sqs", region_name="us-east-1")


@pytest.fixture
def queue(s3, sqs, moto_bucket):
    """The address of a queue that the bucket tells of what is put below in/."""
    url = sqs.create_queue(QueueName=f"queue-of-{moto_bucket}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    below = {"Key": {"FilterRules": [{"Name": "prefix", "Value": "in/"}]}}
    told = {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"], "Filter": below}]}
    s3.put_bucket_notification_configuration(Bucket=moto_bucket, NotificationConfiguration=told)
    return url


def messages(sqs, queue) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    return sum(int(found[name]) for name in names)


def test_files_and_manifests_that_are_told_of_become_services(instance, home, s3, sqs, queue, moto_bucket):
    template = {"model": "iris", "output_path": f"s3://{moto_bucket}/out/{{name}}/"}
    trigger = NotificationTrigger(queue, f"s3://{moto_bucket}/in/", settle_seconds=0)
    sensor = Sensor(instance, Declaration("reviews", template, triggers=(trigger,)), "notifications")
    manifest = json.dumps({"source": f"s3://{moto_bucket}/in/b.csv"}).encode()
    for key, body in (("in/a.csv", b"1,2\n"), ("in/b.csv", b"3,4\n"), ("in/list.manifest", manifest)):
        s3.put_object(Bucket=moto_bucket, Key=key, Body=body)

    tick = sensor.tick()
    inputs = {str(run.run_config["ops"]["reviews"]["config"]["input_path"]) for run in tick.runs}
    (gathered,) = inputs - {f"s3://{moto_bucket}/in/list.manifest"}
    assert len(inputs) == 2
    body = s3.get_object(Bucket=moto_bucket, Key=gathered.removeprefix(f"s3://{moto_bucket}/"))["Body"].read()
    sources = [json.loads(line)["source"] for line in body.splitlines()]
    assert sorted(sources) == [f"s3://{moto_bucket}/in/a.csv", f"s3://{moto_bucket}/in/b.csv"]
    assert messages(sqs, queue) > 0

    for _ in range(2):
        assert sensor.tick().runs == []
    assert messages(sqs, queue) == 0


SECRETS = {"address": "address-hunter2+of/it", "envelope": "envelope-hunter2+of/it", "key": "key-hunter2+of/it-40"}


def sensor_of(queue, bucket, instance) -> Sensor:
    template = {"model": "iris", "output_path": f"s3://{bucket}/out/{{name}}/"}
    trigger = NotificationTrigger(queue, f"s3://{bucket}/in/", settle_seconds=0)
    return Sensor(instance, Declaration("reviews", template, triggers=(trigger,)), "notifications")


def shown_of(sensor) -> list[str]:
    definition = sensor.definitions.resolve_sensor_def("reviews_notifications")
    return [str(definition.description), repr(definition.metadata)]


def failed(sensor) -> str:
    """All that Dagster keeps of a tick that fails."""
    with pytest.raises(TickFailed) as caught:
        sensor.tick()
    return repr(serializable_error_info_from_exc_info((caught.type, caught.value, caught.tb)))


@pytest.mark.parametrize("put", ["https://user:{}@sqs/a", "https://{}@sqs/a", "https://sqs/a?b={}", "https://sqs/a#{}"])
def test_an_address_with_a_secret_is_refused_and_not_shown(instance, home, moto_bucket, put):
    sensor = sensor_of(put.format(SECRETS["address"].replace("/", "%2F")), moto_bucket, instance)
    said = [*shown_of(sensor), failed(sensor)]
    assert "is no queue's URL" in said[-1]
    scanner = Scanner(SECRETS)
    assert set().union(*(scanner.text("said", text) for text in said)) == set()
    assert scanner.bucket(Storage(), moto_bucket) == scanner.folder(home) == set()


def test_no_secret_of_a_message_or_the_credentials_gets_out(
    instance, home, s3, sqs, queue, moto_bucket, monkeypatch, capfd
):
    """Of an SNS topic's envelope, of what is no notification, and of a queue that can't be reached or is gone."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS["key"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRETS["key"])
    secret = SECRETS["envelope"]
    confirm = f"https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&Token={secret}"
    envelope = {"Type": "Notification", "Signature": secret, "SubscribeURL": confirm, "Token": secret}
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": moto_bucket}, "object": {"key": "in/a.csv"}}}
    s3.put_object(Bucket=moto_bucket, Key="in/a.csv", Body=b"1,2\n")
    for message in (secret, json.dumps({"Records": [record]})):
        sqs.send_message(QueueUrl=queue, MessageBody=json.dumps({**envelope, "Message": message}))
    confirmation = {**envelope, "Type": "SubscriptionConfirmation", "Message": secret}
    for body in (json.dumps(confirmation), secret):
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    sensor = sensor_of(queue, moto_bucket, instance)
    tick = sensor.tick()
    assert len(tick.runs) == 1
    said = [*shown_of(sensor), str(tick.cursor), repr(tick.runs)]
    sqs.delete_queue(QueueUrl=queue)
    said.append(failed(sensor))
    assert "there is no such queue" in said[-1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:9")
    said.append(failed(sensor))
    assert "can't be reached" in said[-1]
    logged = "".join(capfd.readouterr())
    assert "3 messages left to the queue's redrive policy" in logged
    scanner = Scanner(SECRETS)
    assert set().union(*(scanner.text("said", text) for text in [*said, logged])) == set()
    assert scanner.bucket(Storage(), moto_bucket) == scanner.folder(home) == set()
