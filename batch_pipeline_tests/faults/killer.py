"""Runs services in processes that are killed at random moments, and says what became of them."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from batch_pipeline import service
from batch_pipeline.deployment import Deployment
from batch_pipeline.ownership import Owner, ProcessIdentity
from batch_pipeline.parameters import parse_parameters
from batch_pipeline_tests.faults.works import Works

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerProcess

MOST_DEATHS = 3
_PROCESSES = multiprocessing.get_context("forkserver")


def preload() -> None:
    """Lets processes start in no time: what a service imports is imported once."""
    _PROCESSES.set_forkserver_preload([__name__, "batch_pipeline.node.run", "polars", "pyarrow.parquet", "onnxruntime"])


def _work(body: dict[str, Any], env: Mapping[str, str], begun: Connection) -> None:
    """A whole service, in a process of its own that may be killed at any time."""
    os.environ.update(env)
    deployment = Deployment.from_environment()
    parameters = parse_parameters(body, settings=deployment.settings)
    owner = Owner(f"run-{os.getpid()}", parameters.full_name, ProcessIdentity.current())
    begun.send(None)
    service.ingest(parameters, deployment, owner)
    for shard in service.plan(parameters, deployment, owner):
        service.infer(shard, deployment, owner)
    service.publish(parameters, deployment, owner)
    begun.send(None)


def _begun(body: dict[str, Any], env: Mapping[str, str]) -> tuple[ForkServerProcess, Connection]:
    ours, theirs = _PROCESSES.Pipe(duplex=False)
    process = _PROCESSES.Process(target=_work, args=(body, dict(env), theirs))
    process.start()
    theirs.close()
    ours.recv()
    return process, ours


def run_whole(body: dict[str, Any], env: Mapping[str, str]) -> float:
    """Lets the service end; returns its seconds."""
    process, connection = _begun(body, env)
    began = time.monotonic()
    connection.recv()  # EOFError where it failed
    process.join()
    return time.monotonic() - began


def undisturbed(works: Works, names: Iterable[str]) -> dict[str, dict[str, bytes]]:
    """What each work comes to when nobody kills it."""
    found = {}
    for work in names:
        run_whole(works.body(work, f"alone-{work}"), environment())
        found[work] = works.published(f"alone-{work}")
        assert any(name.endswith("_result.txt") for name in found[work])
    return found


def environment() -> dict[str, str]:
    """What tells a deployment from others."""
    return {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "BATCH_PIPELINE_"))}


def run_killed(
    body: dict[str, Any], env: Mapping[str, str], chance: random.Random, seconds: float
) -> tuple[int, float | None]:
    """Runs the service and kills it within so many seconds, one to three times, unless it ends before.

    Returns how often that met it alive, and the seconds that it took where it came to its end without a death.
    """
    deaths = 0
    for _ in range(chance.randint(1, MOST_DEATHS)):
        process, connection = _begun(body, env)
        began = time.monotonic()
        if connection.poll(chance.uniform(0, seconds)):
            connection.recv()  # EOFError where it failed
            process.join()
            return deaths, None if deaths else time.monotonic() - began
        process.kill()
        process.join()
        deaths += 1
    return deaths, None
