"""The process that nodes are forked from, and what they keep to although it has imported much for them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import Connection

import pytest

from batch_pipeline import service
from batch_pipeline.deployment import Deployment
from batch_pipeline.orchestration.fork_server import current_fork_server
from batch_pipeline.ownership import Owner
from batch_pipeline.settings import Settings
from batch_pipeline.shard import Shard
from batch_pipeline_tests.places import Place

pytestmark = pytest.mark.executor


def infer(shard: Shard, settings: Settings, owner: Owner, answer: Connection) -> None:
    service.infer(shard, Deployment(settings), owner, at_once=10**6)
    import polars as pl

    answer.send(pl.thread_pool_size())


def test_a_forked_node_reads_on_no_more_threads_than_it_computes_on(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("POLARS_MAX_THREADS", raising=False)
    parameters, owner = place.parameters(), Owner("run", "flowers")
    service.ingest(parameters, place.deployment, owner)
    (shard,) = service.plan(parameters, place.deployment, owner)
    context = multiprocessing.get_context("forkserver")
    answer, theirs = context.Pipe(duplex=False)
    with current_fork_server():
        node = context.Process(target=infer, args=(shard, place.deployment.settings, owner, theirs))
        node.start()
        node.join()
    assert answer.recv() == 1


def tell(asked: Connection, answer: Connection) -> None:
    asked.recv()
    answer.send(os.environ.get("TOLD"))


def test_processes_of_the_callers_own_are_neither_waited_for_nor_ended(monkeypatch: pytest.MonkeyPatch):
    context = multiprocessing.get_context("forkserver")
    told = []

    def fork() -> None:
        asked, ask = context.Pipe(duplex=False)
        answer, theirs = context.Pipe(duplex=False)
        context.Process(target=tell, args=(asked, theirs)).start()
        told.append((ask, answer))

    def fork_from_ours(value: str) -> None:
        monkeypatch.setenv("TOLD", value)
        with current_fork_server():
            fork()

    monkeypatch.setenv("TOLD", "own")
    fork()
    for value in ("ours", "anew"):
        thread = threading.Thread(target=fork_from_ours, args=(value,), daemon=True)
        thread.start()
        thread.join(20)
    answers = []
    for ask, answer in told:
        ask.send(None)
        answers.append(answer.recv())
    assert answers[1:] == ["ours", "anew"]
