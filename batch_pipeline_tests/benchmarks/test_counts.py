"""What a service asks of its store, and what it does for a row: counted, so that it holds on any machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from batch_pipeline_tests.conftest import S3Server
from benchmarks import counts
from benchmarks.workbench import Workbench, workbench


@pytest.fixture
def bench(moto_server: S3Server) -> Iterator[Workbench]:
    with workbench(moto_server.environment, runs=1, quick=True) as bench:
        yield bench


@pytest.mark.parametrize("wire", counts.WIRES, ids=lambda wire: wire.work)
def test_requests_and_bytes(bench: Workbench, wire: counts.Wire) -> None:
    _assert_within(counts.on_the_wire(bench, wire))


def test_python_calls(bench: Workbench) -> None:
    _assert_within(counts.python_calls(bench))


def _assert_within(counted: list[counts.Count]) -> None:
    assert counted
    assert {one.what: one.value for one in counted if one.value > one.bound} == {}
