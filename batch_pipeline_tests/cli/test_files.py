from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_pipeline.cli.files import read_body, read_mapping
from batch_pipeline.errors import InvalidParameters, Refused


def written(folder: Path, text: str | bytes, name: str = "service.yaml") -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def test_yaml_and_json_say_the_same(tmp_path: Path) -> None:
    yaml = written(tmp_path, "\ufeffmodel: iris:1.0\ncsv:\n  header: true\ndescription: 中文\n")
    body = {"model": "iris:1.0", "csv": {"header": True}, "description": "中文"}
    assert read_mapping(yaml) == body == read_mapping(written(tmp_path, json.dumps(body, indent="\t"), "x.json"))


def test_a_brace_may_also_begin_yaml(tmp_path: Path) -> None:
    assert read_mapping(written(tmp_path, "{model: iris, node_count: 2}")) == {"model": "iris", "node_count": 2}


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"model: iris\n")))
    assert read_mapping("-") == {"model": "iris"}


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        ("a: 1\nb: [\n", "x.yaml", r"x\.yaml, line 3: not YAML: "),
        ("a: 1\na: 2\n", "x.yaml", r"x\.yaml, line 2: a stands there twice$"),
        ("csv:\n  header: true\n  header: false\n", "x.yaml", "line 3: header stands there twice$"),
        ("a: \x01\n", "x.yaml", r"x\.yaml, line 1: not YAML: "),
        ("a: 2024-13-45\n", "x.yaml", "not YAML: "),
        ("? [a, b]\n: 1\n", "x.yaml", r"x\.yaml, line 1: not YAML: "),
        ('{\n"a": 1,}', "x.json", r"x\.json, line 2: not JSON: "),
        ('{"a": 1, "a": 2}', "x.json", "a stands there twice$"),
        ("- a\n", "x.yaml", "holds a list; it must hold an object of parameters"),
        ("", "x.yaml", "is empty; it must hold an object"),
        ("[" * 5000, "x.yaml", "nested too deeply"),
        (b"a: 1\nb: \xff\n", "x.yaml", r"x\.yaml, line 2: not UTF-8$"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path, text: str | bytes, name: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        read_mapping(written(tmp_path, text, name))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"nothing\.yaml: no such file$"):
        read_mapping(str(tmp_path / "nothing.yaml"))
    with pytest.raises(Refused, match="cannot be read: Is a directory"):
        read_mapping(str(tmp_path))


def test_settings_are_laid_over_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "model: iris\ncsv: {header: false, missing: nan}\n")
    settings = ["csv.header=true", "node_count=4", "environment.A='1=2'", "description=", "mapping={type: object}"]
    assert read_body(file, settings, "x").parameters == {
        "model": "iris",
        "csv": {"header": True, "missing": "nan"},
        "node_count": 4,
        "environment": {"A": "1=2"},
        "description": "",
        "mapping": {"type": "object"},
        "name": "x",
    }


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("description=5", {"description": "5"}),
        ("description=a: b", {"description": "a: b"}),
        ("description=[draft] one", {"description": "[draft] one"}),
        ("description='5'", {"description": "5"}),
        ("name=null", {"name": None}),
        ("name=2024", {"name": "2024"}),
        ("environment.A=1", {"environment": {"A": "1"}}),
        ("environment.A={env: HOME}", {"environment": {"A": {"env": "HOME"}}}),
        ("error_threshold=1e-3", {"error_threshold": 0.001}),
        ("node_count=2", {"node_count": 2}),
        ("node_count='2'", {"node_count": "2"}),
        ("join_input=true", {"join_input": True}),
    ],
)
def test_a_setting_has_the_type_of_its_parameter(tmp_path: Path, setting: str, expected: dict[str, object]) -> None:
    assert read_body(written(tmp_path, "model: iris"), [setting]).parameters == {"model": "iris", **expected}


@pytest.mark.parametrize("setting", ["a", "=1", "a.=1", ".a=1", " =1"])
def test_a_setting_that_is_none_is_a_wrong_call(tmp_path: Path, setting: str) -> None:
    with pytest.raises(click.BadParameter, match="must be KEY=VALUE"):
        read_body(written(tmp_path, "model: iris"), [setting])


def test_a_setting_inside_what_is_no_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameters, match=r"^model: is not an object, so --set cannot set"):
        read_body(written(tmp_path, "model: iris"), ["model.x=1"])


def test_a_setting_reaches_into_the_originals_body(tmp_path: Path) -> None:
    file = written(tmp_path, json.dumps({"infer_type": "batch", "config": [{"model_id": "iris"}]}), "x.json")
    assert read_body(file, ["node_count=2"], "x").parameters == {"model": "iris", "node_count": 2, "name": "x"}


@settings(deadline=None)
@given(st.text() | st.binary())
def test_whatever_a_file_holds_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str | bytes) -> None:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    try:
        assert isinstance(read_mapping(str(path)), dict)
    except Refused as refused:
        assert "\n" not in refused.message  # noqa: PT017
