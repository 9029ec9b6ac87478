"""Parameter files: YAML or JSON from a file or standard input, with `--name` and `--set` laid over them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batch_pipeline.errors import InvalidParameters, Problem, Refused

if TYPE_CHECKING:
    import yaml

    from batch_pipeline.modelarts import Body

_PATHS = ("input_path", "request_path", "output_path")
TEXTS = {"name", "description", "model", *_PATHS, "node_spec", "if_changed", "csv.missing"}
"""The parameters whose value is text: `--set` needs no quotes for it, whatever YAML would make of it."""

file_argument = click.argument("file", metavar="FILE")
set_option = click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set one parameter, e.g. node_count=4 or csv.header=true; more of them may follow.",
)


def _settings(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    for text in given:
        if "=" not in text:
            raise click.UsageError(f"unexpected argument {text!r}; a setting is KEY=VALUE")
    return given


more_argument = click.argument("more", metavar="[KEY=VALUE]...", nargs=-1, callback=_settings)
"""What follows the first `--set key=value`."""


def read_body(file: str, settings: Sequence[str], name: str | None = None) -> Body:
    """The parameters of a file (`-`: standard input) in our terms. Raises `Refused` where the file can't be read."""
    from batch_pipeline import modelarts

    body = modelarts.read_body(read_mapping(file))
    for setting in settings:
        _set(body.parameters, setting)
    if name is not None:
        body.parameters["name"] = name
    return body


def read_mapping(file: str) -> dict[str, Any]:
    """The object a YAML or JSON file holds. Raises `Refused` that names the file and the line."""
    what = "standard input" if file == "-" else file
    try:
        data = _parsed(_text(file, what), what)
    except RecursionError:
        raise Refused(f"{what} is nested too deeply") from None
    if not isinstance(data, dict):
        kind = "is empty" if data is None else f"holds a {type(data).__name__}"
        raise Refused(f"{what} {kind}; it must hold an object of parameters (YAML or JSON)")
    return data


def _text(file: str, what: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except FileNotFoundError:
        raise Refused(f"{what}: no such file") from None
    except OSError as error:
        raise Refused(f"{what} cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Refused(f"{what}, line {line}: not UTF-8") from error


def _parsed(text: str, what: str) -> object:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, what))
        except json.JSONDecodeError as error:
            if what.endswith(".json"):
                raise Refused(f"{what}, line {error.lineno}: not JSON: {error.msg}") from error
    return _yaml(text, what)


def _yaml(text: str, what: str) -> object:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a key that stands twice, of which YAML would keep the last unsaid."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key.value, str) and key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                    raise Refused(f"{what}, line {key.start_mark.line + 1}: {key.value} stands there twice")
                if isinstance(key.value, str):
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    # YAML 1.1, which PyYAML reads, takes 1e-3 for text.
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))
    try:
        return yaml.load(text, Loader)  # noqa: S506  derived from the safe one
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise Refused(f"{what}{where}: not YAML: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Refused(f"{what}, line {line}: not YAML: {error.reason}") from error
    except ValueError as error:
        raise Refused(f"{what}: not YAML: {error}") from error


def _object(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key in found if sum(name == key for name, _ in pairs) > 1)
        raise Refused(f"{what}: {twice} stands there twice")
    return found


def _set(parameters: dict[str, Any], setting: str) -> None:
    """Lay `key=value` over the parameters; the key may have dots, the value is YAML, or text where text is due."""
    key, equals, value = setting.partition("=")
    if not equals or not key.strip() or "" in key.strip().split("."):
        raise click.BadParameter(f"{setting!r} must be KEY=VALUE", param_hint="--set")
    *parents, last = key.strip().split(".")
    target = parameters
    for number, parent in enumerate(parents):
        inner = target.get(parent)
        if inner is not None and not isinstance(inner, Mapping):
            where = ".".join(parents[: number + 1])
            raise InvalidParameters((Problem(where, f"is not an object, so --set cannot set {key} in it"),))
        target[parent] = dict(inner or {})
        target = target[parent]
    target[last] = _value(key.strip(), value)


def _value(key: str, value: str) -> object:
    is_text = key in TEXTS or (key.startswith("environment.") and not value.lstrip().startswith("{"))
    try:
        parsed = _yaml(value, f"--set {key}") if value else ""
    except Refused:
        if is_text:
            return value
        raise
    return value if is_text and parsed is not None and not isinstance(parsed, str) else parsed
