from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from batch_pipeline.cli import cli, run
from batch_pipeline.cli.edge import Edge
from batch_pipeline.errors import InvalidParameters, NodeFailed, Problem, Refused

ERRORS = {
    "refused": Refused("no such thing"),
    "parameters": InvalidParameters((Problem("name", "is bad"), Problem("csv.header", "is worse"))),
    "failed": NodeFailed("the model does not load"),
    "interrupt": KeyboardInterrupt(),
    "unexpected": ZeroDivisionError("first\nsecond"),
}


def _raise(name: str) -> None:
    raise ERRORS[name]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real group with one more command, which raises what it is told to."""
    command = click.Command("fail", params=[click.Argument(["name"])], callback=_raise)
    assert isinstance(cli, Edge)
    monkeypatch.setitem(cli.commands, "fail", command)


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize(
    ("name", "status", "lines"),
    [
        ("refused", 2, ["error: no such thing"]),
        ("parameters", 2, ["error: name: is bad", "error: csv.header: is worse"]),
        ("failed", 1, ["error: the model does not load"]),
        ("interrupt", 130, ["interrupted"]),
    ],
)
def test_every_error_is_lines_and_a_status(
    capsys: pytest.CaptureFixture[str], name: str, status: int, lines: list[str]
) -> None:
    assert run(["fail", name]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == lines


@pytest.mark.usefixtures("failing")
def test_what_nobody_foresaw_is_one_line_and_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fail", "unexpected"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: unexpected ZeroDivisionError: first (traceback: ")
    file = Path(line.rpartition(": ")[2].rstrip(")"))
    assert "Traceback" in file.read_text()
    file.unlink()


@pytest.mark.usefixtures("failing")
def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--debug", "fail", "unexpected"]) == 1
    assert run(["--debug", "fail", "refused"]) == 2
    assert capsys.readouterr().err.count("Traceback") == 2


@pytest.mark.parametrize("arguments", [["nothing"], ["deploy"], ["deploy", "x", "--nothing"], ["services", "nothing"]])
def test_a_wrong_call_is_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run(arguments) == 2
    assert "Error: " in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    for name in ("demo", "dev", "deploy", "preview", "services", "models", "results"):
        assert f"\n  {name}" in out


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, batch_pipeline.cli as c; c.run(['--help']);"
        "heavy = ('dagster', 'polars', 'pandas', 'numpy', 'onnxruntime', 'boto3', 'pydantic', 'rich');"
        "print([name for name in heavy if name in sys.modules])"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        time.monotonic() - began < 2
    )  # about 0.1 s; half a second is the promise, on a machine with nothing else to do
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    code = (
        "import batch_pipeline.cli as c, click;"
        "many = click.Command('many', callback=lambda: [click.echo('x' * 9999) for _ in range(99)]);"
        "c.cli.add_command(many); raise SystemExit(c.run(['many']))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
