"""The process that nodes are forked from: what they have from it."""

from __future__ import annotations

import multiprocessing
import os

import pytest

from batch_pipeline.deployment import Deployment
from batch_pipeline.orchestration.fork_server import current_fork_server, node_threads
from batch_pipeline.settings import Settings

THREADS = "POLARS_MAX_THREADS"


def _threads_of_polars() -> int:
    import polars as pl

    return pl.thread_pool_size()


@pytest.mark.executor
@pytest.mark.parametrize("threads", [1, 3])
def test_nodes_read_on_as_many_threads_as_they_compute_on(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.delenv(THREADS, raising=False)
    with current_fork_server(threads=threads), multiprocessing.get_context("forkserver").Pool(1) as pool:
        assert pool.apply(_threads_of_polars) == threads
    assert THREADS not in os.environ


def test_several_nodes_share_the_cores_of_the_machine() -> None:
    deployment = Deployment(Settings(local_nodes=10**6))
    assert node_threads(deployment, "cpu-2u8g", 10**6) == 1
    assert node_threads(deployment, "no-such-spec", 1) == 1
    assert node_threads(deployment, "cpu-2u8g", 1) == min(2, len(os.sched_getaffinity(0)))
