"""`batch-pipeline demo`: what it prints, and that nothing stays behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from batch_pipeline_tests.demo.processes import left_behind, listening, marked_environment

pytestmark = [pytest.mark.server, pytest.mark.executor]

DEMO = [str(Path(sys.executable).with_name("batch-pipeline")), "demo"]


def test_runs_both_services(tmp_path: Path) -> None:
    environment, mark = marked_environment()
    demo = subprocess.run(
        DEMO, env=environment | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=300
    )
    assert demo.returncode == 0, demo.stderr
    for text in (
        "iris-demo",
        "column 0 → data.req_data[0].input_1 (number)",
        "s3://demo/flowers-results/",
        "infer-result-2.manifest",
        '{"source": "s3://demo/flowers/all.csv"',
        "5.1,3.5,1.4,0.2 → ",
        "of 30,151 answers are right",
        "digits-demo",
        "none: each file is one request",
        "000.png_result.txt",
        "of 120 answers are right",
    ):
        assert text in demo.stdout
    assert left_behind(mark) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("when", ["training", "deploying"])
def test_stops_when_told(sent: signal.Signals, when: str, tmp_path: Path) -> None:
    environment, mark = marked_environment()
    with subprocess.Popen(
        DEMO, env=environment | {"TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stderr is not None
        assert any(when in line for line in demo.stderr)
        time.sleep(3 if when == "deploying" else 0.2)
        assert {address for address, _ in listening(mark)} == {"127.0.0.1"}
        demo.send_signal(sent)
        demo.stderr.read()
        assert demo.wait(timeout=60) in {1, 130}
    assert left_behind(mark) == []
    assert list(tmp_path.iterdir()) == []


def test_leads_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own settings are hidden for the time, and come back."""
    import os

    from batch_pipeline.demo.environment import playground

    monkeypatch.setenv("AWS_PROFILE", "theirs")
    monkeypatch.setenv("BATCH_PIPELINE_MODELS", "s3://theirs/models/")
    with playground() as home:
        assert "AWS_PROFILE" not in os.environ
        assert os.environ["BATCH_PIPELINE_MODELS"] == "s3://demo/models/"
        assert home.is_relative_to(tempfile.gettempdir())
    assert not home.exists()
    assert os.environ["AWS_PROFILE"] == "theirs"
    assert os.environ["BATCH_PIPELINE_MODELS"] == "s3://theirs/models/"
