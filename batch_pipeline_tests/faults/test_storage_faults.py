"""Whole services through a proxy with faults: the same bytes as without, or an error that says what went wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from batch_pipeline.deployment import Deployment
from batch_pipeline.errors import (
    AccessDenied,
    BatchPipelineError,
    CredentialsRefused,
    NodeFailed,
    ObjectNotFound,
    StorageFailed,
    StorageFull,
)
from batch_pipeline.locations import Location
from batch_pipeline.parameters import ServiceParameters, parse_parameters
from batch_pipeline.settings import Settings
from batch_pipeline.storage import Storage
from batch_pipeline.storage.timeouts import Timeouts
from batch_pipeline_tests.conftest import S3Server
from batch_pipeline_tests.faults import outputs
from batch_pipeline_tests.faults import proxy as faults
from batch_pipeline_tests.faults.proxy import FaultyServer, faulty_proxy
from batch_pipeline_tests.places import Place, run_service

SERVICE = "flowers"


@dataclass
class Faulty:
    """A bucket with a model and inputs, reached through the proxy or not."""

    bucket: str
    proxy: FaultyServer
    deployment: Deployment
    direct: Storage

    def parameters(self, output: str, **changes: object) -> ServiceParameters:
        base = {
            "name": SERVICE,
            "model": "iris",
            "input_path": f"s3://{self.bucket}/in/",
            "output_path": f"s3://{self.bucket}/{output}/",
            "node_count": 2,
        }
        return parse_parameters({**base, **changes}, settings=self.deployment.settings)

    def published(self, output: str) -> dict[str, bytes]:
        return outputs.published(self.direct, Location(self.bucket, f"{output}/"))

    def left_over(self, output: str) -> list[str]:
        return outputs.left_over(self.direct, Location(self.bucket, f"{output}/"))


@pytest.fixture
def faulty(rgw_server: S3Server, rgw_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    direct = Storage()
    direct.connection.client.list_buckets()
    place = Place.at(tmp_path)
    for info in place.deployment.storage.list(Location("", f"{tmp_path}/models/"[1:], "file")):
        key = info.location.key.partition("/models/")[2]
        direct.write(Location(rgw_bucket, f"models/{key}"), place.deployment.storage.read(info.location))
    values = np.random.default_rng(1).uniform(0, 8, (20_000, 4))
    rows = b"".join(b"%.2f,%.2f,%.2f,%.2f\n" % tuple(row) for row in values)
    direct.write(Location(rgw_bucket, "in/large.csv"), rows)
    for number in range(12):
        direct.write(Location(rgw_bucket, f"in/{number:02}.csv"), rows[: 2000 * number + 20])
    with faulty_proxy(rgw_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        settings = {
            "BATCH_PIPELINE_MODELS": f"s3://{rgw_bucket}/models/",
            "BATCH_PIPELINE_CACHE": str(tmp_path / "cache"),
            "BATCH_PIPELINE_MIN_PART_BYTES": "1000",
        }
        deployment = Deployment(Settings.from_environment(settings), Timeouts(read_seconds=5, attempts=6))
        yield Faulty(rgw_bucket, proxy, deployment, direct)
    direct.delete(info.location for info in direct.list(Location(rgw_bucket, "")))
    direct.connection.client.delete_bucket(Bucket=rgw_bucket)


@pytest.mark.parametrize(
    ("seed", "kinds"),
    [(1, faults.BUSY), (2, faults.BROKEN), (3, (faults.SLOW, *faults.BUSY)), (4, (*faults.BUSY, *faults.BROKEN))],
    ids=["busy", "broken", "slow", "all"],
)
def test_a_service_comes_to_the_same_bytes_whatever_passes(faulty, caplog, seed, kinds):
    assert run_service(faulty.parameters("out"), faulty.deployment).state == "finished"
    undisturbed = faulty.published("out")
    faulty.proxy.script = faults.bursts(seed, kinds, rate=0.06, longest=3)
    with caplog.at_level(logging.WARNING, "batch_pipeline.storage"):
        summary = run_service(faulty.parameters("again"), faulty.deployment, "second")
    faulty.proxy.script = faults.nothing
    assert (summary.state, summary.failed) == ("finished", 0)
    assert faulty.published("again") == undisturbed
    assert faulty.left_over("again") == []
    assert faulty.proxy.injected.total() > 5
    if set(kinds) & set(faults.BUSY):
        assert "attempt 1 of 6" in caplog.text


def test_pages_of_a_listing_that_fail_lose_no_input(faulty, monkeypatch):
    listed = [info.location for info in faulty.direct.list(Location(faulty.bucket, "in/"))]
    for fault in (*faults.BUSY, *faults.BROKEN):
        faulty.proxy.script = faults.where(lambda ask: ask.is_listing, fault, most=2)
        found = [info.location for info in faulty.deployment.storage.list(Location(faulty.bucket, "in/"))]
        assert found == listed


def test_an_answer_of_another_version_is_never_taken_for_the_one_that_was_listed(faulty):
    faulty.proxy.script = faults.where(
        lambda ask: ask.is_read and ask.path.endswith("/in/05.csv"), faults.OTHER_ETAG, most=1
    )
    summary = run_service(faulty.parameters("out", error_threshold=0.1), faulty.deployment)
    assert [(error["code"], error["source"]) for error in summary.first_errors] == [
        ("changed", f"s3://{faulty.bucket}/in/05.csv")
    ]


def test_an_input_overwritten_between_listing_and_reading_is_that_inputs_error(faulty):
    from batch_pipeline import service
    from batch_pipeline.ownership import Owner

    parameters, owner = faulty.parameters("out", error_threshold=0.1), Owner("run", SERVICE)
    service.ingest(parameters, faulty.deployment, owner)
    shards = service.plan(parameters, faulty.deployment, owner)
    faulty.direct.write(Location(faulty.bucket, "in/03.csv"), b"1,2,3,4\n")
    for shard in shards:
        service.infer(shard, faulty.deployment, owner)
    summary = service.publish(parameters, faulty.deployment, owner)
    assert (summary.succeeded, summary.failed) == (12, 1)
    assert summary.first_errors[0]["code"] == "changed"


@pytest.mark.parametrize(
    ("key", "fault"),
    [(key, faults.CONFLICT) for key in ("x", "odd//x", "large")] + [("x", faults.CONDITION)],
    ids=["small", "odd", "large", "of a condition"],
)
def test_a_write_without_a_condition_that_meets_a_conflict_is_tried_again(faulty, caplog, key, fault):
    place, data = Location(faulty.bucket, key), b"1" * (2**20 + 1 if key == "large" else 1)
    faulty.proxy.script = faults.where(lambda ask: ask.is_write, fault, most=2)
    with caplog.at_level(logging.WARNING, "batch_pipeline.storage"):
        faulty.deployment.storage.write(place, data)
    assert faulty.direct.read(place) == data
    assert "attempt 2 of 6" in caplog.text


def test_a_write_with_a_condition_that_meets_a_conflict_is_not(faulty):
    place = Location(faulty.bucket, "x")
    etag = faulty.direct.write(place, b"1")
    faulty.proxy.script = faults.where(lambda ask: ask.is_write, faults.CONFLICT)
    for condition in ({"if_absent": True}, {"if_match": etag}):
        with pytest.raises(StorageFailed):
            faulty.deployment.storage.write(place, b"2", **condition)
    assert faulty.proxy.injected.total() == 2
    assert faulty.direct.read(place) == b"1"


def test_a_conflict_over_a_result_does_not_end_the_node(faulty):
    faulty.proxy.script = faults.where(
        lambda ask: ask.is_write and "/infer-result/" in ask.path, faults.CONFLICT, most=1
    )
    assert run_service(faulty.parameters("out"), faulty.deployment).state == "finished"
    assert faulty.proxy.injected.total() == 1


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        (faults.EXPIRED, CredentialsRefused, "refused the credentials"),
        (faults.DENIED, AccessDenied, "refused"),
        (faults.NO_BUCKET, ObjectNotFound, "no bucket"),
        (faults.QUOTA, StorageFull, "is full .QuotaExceeded"),
        (faults.FULL, StorageFull, "is full .XMinioStorageFull"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_is_permanent_fails_at_once_and_by_name(faulty, fault, error, says):
    place = Location(faulty.bucket, "in/00.csv")
    for ask in (
        lambda storage: storage.read(place),
        lambda storage: storage.write(Location(faulty.bucket, "x"), b"1"),
        lambda storage: storage.write(Location(faulty.bucket, "x"), b"1", if_absent=True),
        lambda storage: list(storage.list(Location(faulty.bucket, "in/"))),
    ):
        before = len(faulty.proxy.asked)
        faulty.proxy.script = faults.where(lambda _: True, fault)
        with pytest.raises(error, match=says) as raised:
            ask(faulty.deployment.storage)
        assert not raised.value.transient
        assert len(faulty.proxy.asked) == before + 1


@pytest.mark.parametrize(
    ("which", "fault", "says", "transient"),
    [
        (lambda ask: True, faults.EXPIRED, "refused the credentials", False),
        (lambda ask: ask.is_write and "/infer-result/" in ask.path, faults.QUOTA, "full", False),
        (lambda ask: True, faults.BUSY[1], "SlowDown|HTTP|failed", True),
    ],
    ids=["token expired", "bucket full", "store down"],
)
def test_a_store_that_fails_for_good_ends_the_node_and_no_input_is_blamed(faulty, which, fault, says, transient):
    from batch_pipeline import service
    from batch_pipeline.ownership import Owner

    assert run_service(faulty.parameters("out"), faulty.deployment).state == "finished"
    parameters, owner = faulty.parameters("again"), Owner("second", SERVICE)
    service.ingest(parameters, faulty.deployment, owner)
    shards = service.plan(parameters, faulty.deployment, owner)
    inputs = faults.where(which, fault)
    started = []

    def script(ask: faults.Ask) -> faults.Fault | None:
        started.extend([ask] if ask.is_read and "/in/" in ask.path else [])
        return inputs(ask) if len(started) > 2 else None

    faulty.proxy.script = script
    with pytest.raises(BatchPipelineError, match=says) as raised:
        [service.infer(shard, faulty.deployment, owner) for shard in shards]
    assert raised.value.transient is transient
    assert transient or isinstance(raised.value, NodeFailed | CredentialsRefused)
    faulty.proxy.script = faults.nothing
    for shard in shards:
        service.infer(shard, faulty.deployment, owner)
    assert service.publish(parameters, faulty.deployment, owner).failed == 0
    assert faulty.published("again") == faulty.published("out")
    assert faulty.left_over("again") == []
