"""The demonstration's S3 server lives exactly as long as its user."""

from __future__ import annotations

import subprocess
import sys

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError

from batch_pipeline.demo.s3_server import s3_server
from batch_pipeline_tests.demo.processes import left_behind, marked_environment

pytestmark = pytest.mark.server


def test_serves_and_stops() -> None:
    with s3_server() as endpoint:
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="any",
            aws_secret_access_key="any",
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}),
        )
        client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key="key", Body=b"data")
        assert client.get_object(Bucket="bucket", Key="key")["Body"].read() == b"data"
    with pytest.raises(EndpointConnectionError):
        client.list_buckets()


def test_two_at_once() -> None:
    with s3_server() as first, s3_server() as second:
        assert first != second


def test_ends_with_a_killed_parent() -> None:
    environment, mark = marked_environment()
    script = (
        "from batch_pipeline.demo.s3_server import s3_server\n"
        "import os, signal\n"
        "with s3_server():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], env=environment, check=False, timeout=60)
    assert ended.returncode == -9
    assert left_behind(mark) == []
