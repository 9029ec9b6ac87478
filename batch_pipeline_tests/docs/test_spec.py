"""The table of promises: each test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from batch_pipeline_tests.docs.blocks import ROOT

TESTS = ROOT / "batch_pipeline_tests"
ROWS = re.findall(
    r"^\| (\d+\.\d+) \| .* \| (.*?) ?\|$", (ROOT / "docs/spec.md").read_text(encoding="utf-8"), re.MULTILINE
)


def test_numbers_are_in_order() -> None:
    numbers = [tuple(map(int, number.split("."))) for number, _ in ROWS]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(("number", "cell"), ROWS)
def test_named_tests_exist(number: str, cell: str) -> None:
    for name in re.findall(r"`([^`]+)`", cell):
        file, _, test = name.partition("::")
        assert (TESTS / file).is_file(), f"{number}: {file}"
        assert not test or test in _tests(TESTS / file), f"{number}: {name}"


def _tests(path: Path) -> set[str]:
    return {
        node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)
    }
