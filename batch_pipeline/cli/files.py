"""Parameter files: YAML or JSON from a file or standard input, with `--name` and `--set` laid over them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batch_pipeline import documents
from batch_pipeline.errors import InvalidParameters, Problem, Refused

if TYPE_CHECKING:
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
    data = _parsed(_text(file, what), what)
    if not isinstance(data, dict):
        kind = "is empty" if data is None else f"holds a {type(data).__name__}"
        raise Refused(f"{what} {kind}; it must hold an object of parameters (YAML or JSON)")
    return data


def _text(file: str, what: str) -> str:
    try:
        return documents.read_text(sys.stdin.buffer if file == "-" else Path(file), what)
    except FileNotFoundError:
        raise Refused(f"{what}: no such file") from None
    except OSError as error:
        raise Refused(f"{what} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Refused(f"{what!r} cannot be read: {error}") from error


def _parsed(text: str, what: str) -> object:
    if text.lstrip().startswith("{"):
        try:
            return documents.parse_json(text, what)
        except json.JSONDecodeError as error:
            if what.endswith(".json"):
                raise Refused(f"{what}, line {error.lineno}: not JSON: {error.msg}") from error
    return documents.parse_yaml(text, what)


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
        parsed = documents.parse_yaml(value, f"--set {key}") if value else ""
    except Refused:
        if is_text:
            return value
        raise
    return value if is_text and parsed is not None and not isinstance(parsed, str) else parsed
