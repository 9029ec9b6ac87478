"""Every benchmark works, over little data. How fast anything is, is not for a test to say."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from batch_pipeline_tests.conftest import S3Server
from benchmarks.cases import CASES
from benchmarks.main import measure


@pytest.mark.parametrize("name", CASES)
def test_runs(name: str, rgw_server: S3Server) -> None:
    if name == "ray_csv" and find_spec("ray") is None:
        pytest.skip("Ray Data is not installed: pip install -r requirements-bench.txt")
    outcomes = measure(name, rgw_server.environment, runs=1, quick=True)
    assert outcomes
    assert all(len(outcome.values) == 1 and outcome.values[0] == outcome.values[0] for outcome in outcomes)
