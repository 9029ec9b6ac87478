"""`batch-pipeline dev`: the Dagster UI and daemon over a seeded S3 server, until they are told to stop."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import click
import yaml

from batch_pipeline.demo.environment import playground
from batch_pipeline.demo.seed import DemoService, seed
from batch_pipeline.deployment import Deployment
from batch_pipeline.orchestration.shipped import WORKSPACE

DECLARED = Path(__file__).with_name("services")
"""The declared services of the demonstration."""
GRACE_SECONDS = 20
SHARED = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_REGION",
    "BATCH_PIPELINE_MODELS",
    "BATCH_PIPELINE_CACHE",
    "DAGSTER_HOME",
)
"""What another terminal needs to work with the same deployment."""


def serve(port: int) -> int:
    """Run until Ctrl-C or SIGTERM (0), or until Dagster ends by itself (its exit status, or 1)."""
    try:
        with playground() as home:
            click.echo("training and uploading two models …", err=True)
            deployment = Deployment.from_environment()
            flowers, _ = seed(deployment)
            launchpad = _write_launchpad(flowers, home)
            _fill_catalog(flowers, [model.ref for model in deployment.registry.models()])
            with _dagster(port, launchpad) as process:
                click.echo(_welcome(port), err=True)
                return process.wait() or 1
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        return 0


def _write_launchpad(demo: DemoService, home: Path) -> Path:
    path = home / "launchpad.yaml"
    path.write_text(yaml.safe_dump(demo.parameters, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def _fill_catalog(demo: DemoService, models: Sequence[str]) -> None:
    """The service's name stands in the UI before its first run, so that the Launchpad opens with its parameters.

    So do the models: the UI asks twice before it launches anything over an asset that was never materialized.
    """
    from batch_pipeline.definitions import defs
    from batch_pipeline.orchestration.instance import open_instance
    from batch_pipeline.orchestration.model_assets import look_at_models
    from batch_pipeline.orchestration.names import SERVICE

    with open_instance(quiet=True) as instance:
        instance.add_dynamic_partitions(SERVICE, [demo.parameters["name"]])
        look_at_models(defs, instance, models)


@contextmanager
def _dagster(port: int, launchpad: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Webserver, daemon and code server as one group of processes, none of which outlives the block."""
    # `dagster dev` warns that `dg dev` is its successor, which is for projects of another shape.
    dagster = [sys.executable, "-W", "ignore", "-m", "dagster", "dev"]
    command = [*dagster, "-w", str(WORKSPACE), "-h", "127.0.0.1", "-p", str(port)]
    # Dagster leaves sockets behind where a process had to be killed; a socket's path may have 107 bytes at most.
    short = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108  a folder of our own is made in it
    with tempfile.TemporaryDirectory(prefix="bp-", dir=short, ignore_cleanup_errors=True) as scratch:
        variables = os.environ | {"BATCH_PIPELINE_LAUNCHPAD_CONFIG": str(launchpad), "TMPDIR": scratch}
        variables["BATCH_PIPELINE_SERVICES"] = str(DECLARED)
        with subprocess.Popen(command, env=variables, cwd=launchpad.parent, start_new_session=True) as process:
            try:
                yield process
            finally:
                _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    try:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _welcome(port: int) -> str:
    exports = " ".join(f"{name}={shlex.quote(os.environ[name])}" for name in SHARED)
    return (
        f"the UI comes up on http://127.0.0.1:{port}; Ctrl-C stops everything, and nothing is kept\n"
        f"for the command line, in another terminal:\n  export {exports}"
    )
