"""Where a case works: a bucket and an instance of its own, and the commands that it runs there."""

from __future__ import annotations

import copy
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from batch_pipeline.demo.environment import settings
from batch_pipeline.deployment import Deployment
from batch_pipeline.locations import Location
from benchmarks.measure import Usage, run
from benchmarks.outcome import Work

REPOSITORY = Path(__file__).parents[1]
TRANSFERS_AT_ONCE = 16


@dataclass(frozen=True)
class Done:
    """A command that ended well, and the folder where its results are."""

    usage: Usage
    output: str

    @property
    def seconds(self) -> float:
        return self.usage.seconds


Run = Callable[[str], Done]
"""Does one side's work over an input folder."""


class Workbench:
    """One case's models, inputs and outputs in a bucket, and the environment of the commands that use them."""

    def __init__(self, root: Path, bucket: str, env: Mapping[str, str], *, runs: int, quick: bool) -> None:
        self.bucket = bucket
        self._home = Location(bucket, "")
        self.runs = runs
        self.quick = quick
        self.env = env
        self._root = root
        self._numbers = itertools.count()

    @cached_property
    def deployment(self) -> Deployment:
        return Deployment.from_environment(self.env)

    def on_disk(self) -> Workbench:
        """The same, but that inputs and results are files: no store works on the same cores. Rivals know none."""
        bench = copy.copy(self)
        bench._home = Location("", f"{self._root}/disk/".removeprefix("/"), "file")
        return bench

    def amount(self, full: int, quick: int) -> int:
        """How much there is to do."""
        return quick if self.quick else full

    def push(self, name: str, write_package: Callable[[Path], None]) -> None:
        """Makes a model package and puts it into the registry as version 1."""
        folder = self._root / "packages" / name
        folder.mkdir(parents=True)
        write_package(folder)
        self.deployment.registry.push(folder, f"{name}:1")

    def put(self, folder: str, files: Iterable[tuple[str, Iterable[bytes]]]) -> str:
        """Writes files, each by its name and pieces; returns the folder."""

        def put_one(file: tuple[str, Iterable[bytes]]) -> None:
            with self.deployment.storage.open_writer(self._home.child(folder + file[0])) as writer:
                for piece in file[1]:
                    writer.write(piece)

        with ThreadPoolExecutor(TRANSFERS_AT_ONCE) as pool:
            list(pool.map(put_one, files))
        return folder

    def service(self, model: str, folder: str, **parameters: Any) -> dict[str, Any]:
        """The parameters of a new service over a folder, or a manifest."""
        name = f"service-{next(self._numbers)}"
        return {
            "name": name,
            "model": model,
            "input_path": self._home.child(folder).uri,
            "output_path": self._home.child(f"out/{name}/").uri,
            **parameters,
        }

    def deploy(self, model: str, folder: str, **parameters: Any) -> Done:
        """`batch-pipeline deploy FILE --wait`."""
        body = self.service(model, folder, **parameters)
        file = self._root / "service.json"
        file.write_text(json.dumps(body), encoding="utf-8")
        usage = self.python("-m", "batch_pipeline", "deploy", str(file), "--wait")
        return Done(usage, f"out/{body['name']}/")

    def steps(self, model: str, folder: str, **parameters: Any) -> Iterator[Done]:
        """The steps of a service without Dagster, each in a process of its own: the plan, then the first node."""
        body = self.service(model, folder, **parameters)
        file = self._root / "service.json"
        for step in ("plan", "infer"):
            file.write_text(json.dumps(body), encoding="utf-8")
            usage = self.python("-m", "benchmarks.node", step, str(file), str(self._root / "shards"))
            yield Done(usage, f"out/{body['name']}/")

    def rival(self, name: str, folder: str, *more: str) -> Done:
        """One of `benchmarks/rivals` over a folder, with an output folder of its own."""
        output = f"out/{name}-{next(self._numbers)}/"
        return Done(self.python("-m", f"benchmarks.rivals.{name}", self.bucket, folder, output, *more), output)

    def python(self, *arguments: str) -> Usage:
        return run([sys.executable, *arguments], self.env)

    def results(self, done: Done) -> dict[str, bytes]:
        """The result files of a run by the name of their input, or whatever a rival called them."""
        files = self.files(done)
        names = [one.key.rpartition("/")[2].removesuffix("_result.txt") for one in files]
        with ThreadPoolExecutor(TRANSFERS_AT_ONCE) as pool:
            return dict(zip(names, pool.map(self.deployment.storage.read, files), strict=True))

    def files(self, done: Done) -> list[Location]:
        """Where the results are."""
        found = self.deployment.storage.list(self._home.child(done.output))
        keys = [info.location for info in found if info.size]
        return [one for one in keys if "/_batch/" not in one.key and not one.key.endswith(".manifest")]

    def clear(self, *done: Done) -> None:
        storage = self.deployment.storage
        for one in done:
            storage.delete(info.location for info in storage.list(self._home.child(one.output)))

    def works(
        self, ours: Run, other: Run, *, whole: str, one: str, agree: Callable[[Done, Done], None]
    ) -> list[tuple[Work, Work]]:
        """Both sides' work, A B A B, after one run of each to warm up. The first answers are compared.

        It is a run over all less one over a single row or file, so that what it takes to start cancels. A quick bench
        does without the second.
        """
        if not self.quick:
            self.clear(ours(one), other(one))
        found = []
        for number in range(self.runs):
            pair = ours(whole), other(whole)
            start = (None, None) if self.quick else (ours(one), other(one))
            if number == 0:
                agree(*pair)
            self.clear(*pair, *filter(None, start))
            found.append((less(pair[0], start[0]), less(pair[1], start[1])))
        return found


def less(done: Done, start: Done | None) -> Work:
    used = done.usage
    if start is None:
        return Work(used.seconds, used.cpu, used.peak)
    return Work(used.seconds - start.usage.seconds, used.cpu - start.usage.cpu, used.peak)


@contextmanager
def workbench(server: Mapping[str, str], *, runs: int, quick: bool) -> Iterator[Workbench]:
    """A bench that leaves nothing behind, on the S3 server that these AWS_* variables name."""
    bucket = f"bench-{uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory(prefix="batch-pipeline-bench-") as folder:
        root = Path(folder)
        env = _environment(server, root, bucket)
        with _environment_of_this_process(env):
            bench = Workbench(root, bucket, env, runs=runs, quick=quick)
            client = bench.deployment.storage.connection.client
            client.create_bucket(Bucket=bucket)
            try:
                yield bench
            finally:
                storage = bench.deployment.storage
                storage.delete(info.location for info in storage.list(Location(bucket, "")))
                client.delete_bucket(Bucket=bucket)


def rgw() -> dict[str, str]:
    """The variables of the Ceph RADOS Gateway that scripts/rgw-up starts, or finds running."""
    started = subprocess.run([REPOSITORY / "scripts/rgw-up"], capture_output=True, text=True, check=True)
    return dict(word.split("=", 1) for word in started.stdout.split()[1:])


def _environment(server: Mapping[str, str], root: Path, bucket: str) -> dict[str, str]:
    home = root / "dagster"
    home.mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", home)
    foreign = ("AWS_", "BATCH_PIPELINE_", "DAGSTER_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    ours = settings(server["AWS_ENDPOINT_URL_S3"], home) | {"BATCH_PIPELINE_MODELS": f"s3://{bucket}/models/"}
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    return kept | ours | dict(server) | {"PYTHONPATH": path}


@contextmanager
def _environment_of_this_process(env: Mapping[str, str]) -> Iterator[None]:
    """The S3 client takes its server from the environment."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
