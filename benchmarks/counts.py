"""What is repeatable, counted: requests and bytes between a service and its store, and Python calls per row.

A regression shows here without a stopwatch: batch_pipeline_tests/benchmarks asserts every bound.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from batch_pipeline import service
from batch_pipeline.deployment import Deployment
from batch_pipeline.ownership import Owner
from batch_pipeline.parameters import ServiceParameters, parse_parameters
from benchmarks import data, models, networks
from benchmarks.counting_proxy import Request, counting_proxy
from benchmarks.workbench import Workbench

RECORDS = 75
"""Requests of a whole service beside its inputs and results: listings, model, lock, plan, ledger, manifests."""
OF_TIME = {"MainThread", "heartbeat", "ledger", "time-limit"}
"""The threads of a node that do something every so often, however many rows there are."""


@dataclass(frozen=True)
class Count:
    """A number that does not depend on how fast anything is, and what it must not exceed."""

    work: str
    what: str
    value: float
    bound: float


@dataclass(frozen=True)
class Wire:
    """One kind of work to watch on the wire, and the bounds: what was counted when they were set."""

    work: str
    write_package: Callable[[Path], None]
    files: Callable[[], Iterable[tuple[str, Iterable[bytes]]]]
    reads: float = 1
    """Requests that read an input."""
    looks: float = 1
    """Requests that look at a result once it is written, to prove and to review it."""
    again: float = 1
    """Bytes that these read, in copies of the results."""


WIRES = (
    Wire("100 CSV files of one row", models.write_mlp, lambda: data.one_row_files(100)),
    Wire("one CSV of 10 MB", models.write_mlp, lambda: [("0.csv", data.csv(10**7 // 240))], 2, 16, 0.27),
    Wire("100 images", networks.write_tiny, lambda: data.image_files(100), looks=1.05, again=1.05),
)


def count_all(bench: Workbench) -> list[Count]:
    """Every count of the table."""
    return [*(count for wire in WIRES for count in on_the_wire(bench, wire)), *python_calls(bench)]


def on_the_wire(bench: Workbench, wire: Wire) -> list[Count]:
    """A whole service with a proxy before its store."""
    work, name = wire.work, wire.work.lower().replace(" ", "-")
    held = {file: b"".join(pieces) for file, pieces in wire.files()}
    bench.push(name, wire.write_package)
    folder = bench.put(f"{name}/", ((file, [content]) for file, content in held.items()))
    with counting_proxy(os.environ["AWS_ENDPOINT_URL_S3"]) as proxy, _endpoint(proxy.endpoint):
        deployment = Deployment.from_environment()
        parameters = parse_parameters(bench.service(name, folder), settings=deployment.settings)
        _serve(parameters, deployment)
    read = [one for one in proxy.requests if one.path.startswith(f"/{bench.bucket}/{folder}")]
    results = [one for one in proxy.requests if "/infer-result/" in one.path]
    written = [one for one in results if one.method == "PUT"]
    looked = [one for one in results if one.method == "GET"]
    others = len(proxy.requests) - len(read) - len(written) - len(looked)
    size = sum(len(content) for content in held.values())
    answers = sum(one.sent for one in written)
    return [
        Count(work, "requests that read an input", len(read) / len(held), wire.reads),
        Count(work, "copies of the inputs that are read, by bytes", _bytes(read) / size, 1),
        Count(work, "requests that write a result", len(written) / len(held), 1),
        Count(work, "requests that look at a result afterwards", len(looked) / len(held), wire.looks),
        Count(work, "copies of the results that are read again, by bytes", _bytes(looked) / answers, wire.again),
        Count(work, "all other requests of the service", others, RECORDS),
    ]


def python_calls(bench: Workbench) -> list[Count]:
    """Calls of Python functions in the threads through which rows go: none is for a row, some are for a block."""
    name, work = "calls", "rows of 30 numbers"
    bench.push(name, models.write_mlp)
    few, block, many = (_calls(bench, name, rows) for rows in (1_000, 8_000, 100_000))
    return [
        Count(work, "Python calls per row, within a block of 4 MiB", max(0, block - few) / 7_000, 0.015),
        Count(work, "Python calls per row, from block to block", (many - block) / 92_000, 0.13),
    ]


def _calls(bench: Workbench, model: str, rows: int) -> int:
    folder = bench.put(f"{model}-{rows}/", [("0.csv", data.csv(rows))])
    deployment = bench.deployment
    parameters = parse_parameters(bench.service(model, folder), settings=deployment.settings)
    owner = Owner("benchmark", parameters.name or "")
    service.ingest(parameters, deployment, owner)
    (shard,) = service.plan(parameters, deployment, owner)
    with _counted_calls() as count:
        service.infer(shard, deployment, owner)
    service.publish(parameters, deployment, owner)
    return count()


@contextmanager
def _counted_calls() -> Iterator[Callable[[], int]]:
    """Counts in the threads that start within the block."""
    numbers = itertools.count()

    def profile(_frame: FrameType, event: str, _argument: Any) -> None:
        name = threading.current_thread().name
        # Threads without a name of their own are not the node's: a test's server has such in the same process.
        if name in OF_TIME or name.startswith("Thread-"):
            sys.setprofile(None)
        elif event == "call":
            next(numbers)

    threading.setprofile(profile)
    try:
        yield lambda: next(numbers)
    finally:
        threading.setprofile(None)


def _serve(parameters: ServiceParameters, deployment: Deployment) -> None:
    owner = Owner("benchmark", parameters.name or "")
    service.ingest(parameters, deployment, owner)
    for shard in service.plan(parameters, deployment, owner):
        service.infer(shard, deployment, owner)
    service.publish(parameters, deployment, owner)


def _bytes(requests: Sequence[Request]) -> int:
    return sum(one.received for one in requests)


@contextmanager
def _endpoint(address: str) -> Iterator[None]:
    before = os.environ["AWS_ENDPOINT_URL_S3"]
    os.environ["AWS_ENDPOINT_URL_S3"] = address
    try:
        yield
    finally:
        os.environ["AWS_ENDPOINT_URL_S3"] = before
