"""What a service asks of its store, and what it does for a row: counted, so that it holds on any machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from batch_pipeline_tests.conftest import S3Server
from benchmarks import counts, data, models, networks
from benchmarks.workbench import Workbench, workbench


@pytest.fixture
def bench(moto_server: S3Server) -> Iterator[Workbench]:
    with workbench(moto_server.environment, runs=1, quick=True) as bench:
        yield bench


def test_small_csv_files(bench: Workbench) -> None:
    _assert_within(counts.on_the_wire(bench, "100 CSV files of one row", models.write_mlp, data.one_row_files(100)))


def test_a_large_csv(bench: Workbench) -> None:
    files = [("0.csv", data.csv(10**7 // 240))]
    _assert_within(counts.on_the_wire(bench, "one CSV of 10 MB", models.write_mlp, files, reads=2, looks=42))


def test_images(bench: Workbench) -> None:
    _assert_within(counts.on_the_wire(bench, "100 images", networks.write_tiny, data.image_files(100), looks=1.05))


def test_python_calls(bench: Workbench) -> None:
    _assert_within(counts.python_calls(bench))


def _assert_within(counted: list[counts.Count]) -> None:
    assert counted
    assert {one.what: one.value for one in counted if one.value > one.bound} == {}
