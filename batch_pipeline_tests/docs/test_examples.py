"""The examples of README and docs, executed one after the other against the demonstration's server."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_pipeline_tests.docs.blocks import ROOT, blocks, commands

pytestmark = [pytest.mark.server, pytest.mark.executor]

NOT_HERE = ("batch-pipeline demo", "batch-pipeline dev", "batch-pipeline services stop")
"""The first two have tests of their own; there is nothing left to stop once the service has finished."""


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The environment that `make dev` prints, and a model package in a folder."""
    from batch_pipeline.demo import iris
    from batch_pipeline.demo.environment import playground
    from batch_pipeline.demo.seed import seed
    from batch_pipeline.deployment import Deployment

    package = tmp_path_factory.mktemp("package")
    iris.write_package(package)
    with playground():
        seed(Deployment.from_environment())
        yield package


@pytest.mark.parametrize("page", ["README.md", "command-line.md", "models.md"])
def test_commands(page: str, seeded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from batch_pipeline.cli import run

    for _, line in (command for command in commands() if command[0] == page):
        if line.startswith(NOT_HERE):
            continue
        filled = line.replace("DIR", str(seeded)).replace("NAME:VERSION", f"{Path(page).stem}:1.0.0")
        arguments = [_absolute(word, tmp_path) for word in shlex.split(filled)[1:]]
        assert run(arguments) == 0, f"{line}: {capsys.readouterr().err}"


def test_python(seeded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("python", "command-line.md")
    exec(compile(block.text, block.page, "exec"), {})
    assert "virginica" in capsys.readouterr().out


def _absolute(word: str, folder: Path) -> str:
    if word.startswith("examples/"):
        return str(ROOT / word)
    return str(folder / word) if word.endswith(".parquet") else word
