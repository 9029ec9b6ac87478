"""YAML and JSON of people: a few lines that mean millions, or have no end, cost nothing and are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from batch_pipeline import documents
from batch_pipeline.cli.files import read_body, read_mapping
from batch_pipeline.components.folder import load_folder
from batch_pipeline.documents import (
    DEEPEST,
    LARGEST,
    check_yaml,
    is_too_deep,
    parse_json,
    parse_yaml,
    read_text,
)
from batch_pipeline.errors import Refused
from batch_pipeline.node_specs import load_node_specs
from batch_pipeline.orchestration.job import LAUNCHPAD_CONFIG, run_config_of_service
from batch_pipeline_tests.faults.fuzzing import bounded_memory, ends


def laughs(levels: int) -> str:
    """10 to the power of `levels` values."""
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    for level in range(1, levels):
        again = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} [{again}]")
    return "\n".join(lines)


def merged(levels: int) -> str:
    """Merges of merges, which PyYAML itself would write out."""
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, levels):
        again = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} {{<<: [{again}]}}")
    return "\n".join(lines)


BOMBS = {
    "laughs": (laughs(9), "holds more than 100,000 values, each counted as often as aliases repeat it"),
    "merges": (merged(9), "holds more than 100,000 values"),
    "itself": ("a: &a [*a]", "nested too deeply: more than 240 levels, or an alias within what it repeats"),
    "each other": ("a: &a {b: &b [*a]}\nc: *b", "nested too deeply"),
    "deep": ("a: " + "[" * 100_000 + "]" * 100_000, "nested too deeply"),
    "deep blocks": ("- " * 5000 + "x", "nested too deeply"),
    "deep keys": ("? " * 5000 + "x", "nested too deeply"),
    "large": ("a: " + "x" * LARGEST, "is larger than 4 MiB, which is the most that is read"),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("reader", ["parameters", "node specs", "launchpad", "declared"])
def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bomb: str, reader: str) -> None:
    text, says = BOMBS[bomb]
    file = tmp_path / "services" / "x" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    monkeypatch.setenv(LAUNCHPAD_CONFIG, str(file))
    readers: dict[str, Callable[[], object]] = {
        "parameters": lambda: read_mapping(str(file)),
        "node specs": lambda: load_node_specs(file),
        "launchpad": lambda: run_config_of_service("flowers"),
        "declared": lambda: load_folder(tmp_path / "services"),
    }
    with ends(120), bounded_memory(500), pytest.raises(Refused, match=re.escape(says)) as refused:
        readers[reader]()
    assert str(file) in refused.value.message
    assert len(refused.value.message) < 500


def test_a_setting_of_the_command_line_is_one_too(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("model: iris")
    with pytest.raises(Refused, match="--set mapping holds more than"):
        read_body(str(tmp_path / "x.yaml"), [f"mapping={laughs(9)}"])


def test_no_more_values_are_read_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST_VALUES", 1000)
    assert parse_yaml("[" + "1," * 998 + "1]", "x") == [1] * 999
    with pytest.raises(Refused, match="holds more than 1,000 values"):
        parse_yaml("[" + "1," * 999 + "1]", "x")


def test_aliases_of_people_are_read() -> None:
    text = "a: &a {x: 1, y: [2]}\nb: *a\nc: {<<: *a, x: 3}"
    assert parse_yaml(text, "x") == {"a": {"x": 1, "y": [2]}, "b": {"x": 1, "y": [2]}, "c": {"x": 3, "y": [2]}}


@pytest.mark.parametrize("levels", [DEEPEST, DEEPEST + 1])
def test_the_deepest_document(levels: int) -> None:
    text = "[" * levels + "1" + "]" * levels
    assert is_too_deep(json.loads(text)) == (levels > DEEPEST)
    for parse in (parse_yaml, parse_json):
        if levels > DEEPEST:
            with pytest.raises(Refused, match=r"^x is nested too deeply"):
                parse(text, "x")
        else:
            assert parse(text, "x") == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        *("!!int ''", "!!float ''", "!!bool x", "!!timestamp x", "!!set [x]", "!!map [x]", "2024-13-45", "1" * 5000),
        *("1" + ":1" * 1_000_000, "0x" + "f" * 5000, "!!int 1" + ":1" * 1_000_000),
        *("!!binary x", "!!python/object/apply:os.system [x]", "*x", "!!omap x"),
        *("1" + ":1" * 185 + ".5", r'"\UFFFFFFFF"', r'"\U00110000"'),
    ],
)
def test_a_value_that_is_not_of_its_type_is_no_yaml(text: str) -> None:
    with pytest.raises(Refused, match=r"^x(, line 1)?: not YAML: "):
        parse_yaml(f"a: {text}", "x")


SECRET = "hunter2"
BROKEN = [
    *("!%s", "*%s", "!x!%s", "*%s+", "&%s 1\n  C: &%s 2", "!!int %s", "!!float %s", "!!bool %s", "!!timestamp %s"),
    *("!!binary %s", "[%s", "'%s", "@%s", "%s: x: y", '"\\UFFFFFFFF%s"', "!!set %s", "!!omap [%s]", "!!int 1:%s"),
]


@pytest.mark.parametrize("value", BROKEN)
@pytest.mark.parametrize("reader", ["parameters", "setting", "declared"])
def test_what_may_be_secret_is_not_repeated(tmp_path: Path, value: str, reader: str) -> None:
    written = value.replace("%s", SECRET)
    file = tmp_path / "services" / "x" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        f"type: batch_pipeline.BatchService\nattributes:\n  environment:\n   B: x\n   PASSWORD: {written}\n"
    )
    readers: dict[str, Callable[[], object]] = {
        "parameters": lambda: read_mapping(str(file)),
        "setting": lambda: read_body(str(tmp_path / "x.yaml"), [f"environment={{PASSWORD: {written}}}"]),
        "declared": lambda: load_folder(tmp_path / "services"),
    }
    (tmp_path / "x.yaml").write_text("model: iris")
    with pytest.raises(
        Refused, match=r"(, line \d: not YAML: .*\(column \d+\)|: not YAML: a value is not of .*)$"
    ) as refused:
        readers[reader]()
    assert SECRET not in refused.value.message
    assert not isinstance(refused.value.__cause__, yaml.YAMLError | ValueError)


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(Refused, match=r"^x: not JSON: "):
        parse_json('{"a": ' + "1" * 5000 + "}", "x")


def test_a_key_that_stands_twice_among_many_is_found_at_once() -> None:
    pairs = ", ".join(f'"{number}": 0' for number in range(100_000))
    with ends(), pytest.raises(Refused, match="99999 stands there twice"):
        parse_json(f'{{{pairs}, "99999": 1}}', "x")


def test_documents_for_another_reader_are_only_measured() -> None:
    check_yaml("a: !anything {{ x }}\n---\nb: 1\nb: 2\nc: 2024-13-45\nd: &d {e: 1}\nf: {<<: *d}\n", "x")
    with pytest.raises(Refused, match=r"^x, line 2: not YAML: "):
        check_yaml("a: 1\nb: [", "x")
    with pytest.raises(Refused, match=r"^x holds more than"):
        check_yaml("a: 1\n---\n" + laughs(9), "x")


def test_a_device_is_no_document() -> None:
    with pytest.raises(Refused, match=r"^x is larger than"):
        read_text(Path("/dev/zero"), "x")
