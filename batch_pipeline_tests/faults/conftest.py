"""What the tests that kill services share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_pipeline.locations import Location
from batch_pipeline_tests.docs.blocks import ROOT
from batch_pipeline_tests.faults import figures as table
from batch_pipeline_tests.faults import works as work
from batch_pipeline_tests.faults.figures import Figures
from batch_pipeline_tests.faults.works import Works


@pytest.fixture
def works(rgw_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Works]:
    """A bucket with two models and the inputs of each kind of work, and a deployment of it in the environment."""
    folder = tmp_path / "made"
    folder.mkdir()
    works = work.prepare(rgw_bucket, folder)
    monkeypatch.setenv("BATCH_PIPELINE_MODELS", f"s3://{rgw_bucket}/models/")
    monkeypatch.setenv("BATCH_PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BATCH_PIPELINE_MIN_PART_BYTES", "1000")
    yield works
    works.storage.delete(info.location for info in works.storage.list(Location(rgw_bucket, "")))
    works.storage.connection.client.delete_bucket(Bucket=rgw_bucket)


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Iterator[dict[str, Figures]]:
    """By what was killed; written down at the end of `make test-faults` where every trial went well."""
    found: dict[str, Figures] = {}
    yield found
    if (page := os.environ.get("FAULT_FIGURES")) and not request.session.testsfailed:
        table.write(ROOT / page, found)
