"""The sensor of a queue of bucket notifications: real messages of a real store, down to the runs it asks for."""

from __future__ import annotations

import json
import os

import boto3
import pytest

from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.triggers.settings import NotificationTrigger
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
