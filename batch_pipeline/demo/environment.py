"""Where the demonstration runs: a temporary home, an S3 server, and an environment that leads to these alone."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from batch_pipeline.demo.s3_server import s3_server
from batch_pipeline.demo.seed import MODELS
from batch_pipeline.orchestration.shipped import INSTANCE


@contextmanager
def playground() -> Iterator[Path]:
    """A DAGSTER_HOME and an S3 server that last as long as the block, however it ends; gives the home.

    Ctrl-C, SIGTERM and a closed terminal end the block as `KeyboardInterrupt`.
    """
    with tempfile.TemporaryDirectory(prefix="batch-pipeline-demo-") as folder, _interruptible():
        home = Path(folder)
        shutil.copy(INSTANCE, home / "dagster.yaml")
        with s3_server() as endpoint, _environment(_hidden() | settings(endpoint, home)):
            yield home


def settings(endpoint: str, home: Path) -> dict[str, str]:
    """The variables that make a deployment of this server and home."""
    exempt = ",".join(part for part in (os.environ.get("NO_PROXY"), "127.0.0.1") if part)
    return {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo-secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "BATCH_PIPELINE_MODELS": MODELS.uri,
        "BATCH_PIPELINE_ALLOW_LOCAL_FILES": "true",
        "BATCH_PIPELINE_CACHE": str(home / "cache"),
        "DAGSTER_HOME": str(home),
        "ORT_DISABLE_TELEMETRY": "1",
        "NO_PROXY": exempt,
        "no_proxy": exempt,
    }


def _hidden() -> dict[str, str | None]:
    """The user's own variables that would lead elsewhere, each to be unset."""
    return dict.fromkeys(name for name in os.environ if name.startswith(("AWS_", "BATCH_PIPELINE_", "DAGSTER_")))


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """These variables (None unsets), for this process and those it starts, until the end of the block."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM, and the closing of the terminal unless it is to be ignored (nohup), do what Ctrl-C does."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # A shell starts its background jobs with SIGINT ignored, and so would be Dagster's, which is stopped by it.
    told = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        told.append(signal.SIGHUP)
    before = {each: signal.signal(each, interrupt) for each in told}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
