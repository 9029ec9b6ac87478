"""How problems with the parameters are told: the rule of each key, and pydantic's errors turned into ours."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from batch_pipeline.errors import Problem

RULES = {
    "name": "1 to 64 letters, digits, _, - or Chinese characters",
    "description": "text of at most 100 characters, none of !<>=&\"'",
    "model": "name:version, or name for the newest normal version",
    "input_path": "a folder (s3://bucket/prefix/) or one file ending .manifest",
    "request_path": "the url of one of the model's apis, for example /",
    "mapping": "an object: the request's JSON schema with an index at each leaf",
    "output_path": "a folder (s3://bucket/prefix/)",
    "node_spec": "the id of a node spec",
    "node_count": "an integer of 1 or more",
    "environment": "an object of names to text or {env: NAME}",
    "error_threshold": "a number from 0 to 1",
    "if_changed": "refuse or overwrite",
    "csv": "an object with header, multiline and missing",
    "csv.header": "true or false",
    "csv.multiline": "true or false",
    "csv.missing": "error or nan",
    "join_input": "true or false",
}


def problems(error: ValidationError) -> tuple[Problem, ...]:
    """Every problem once, in the order of the table; unknown keys last."""
    found = dict.fromkeys(_problem(issue) for issue in error.errors())
    return tuple(sorted(found, key=_table_order))


def wrong(key: str, value: object) -> ValueError:
    return ValueError(f"must be {RULES[key]}, not {_shown(value)}")


def _problem(issue: ErrorDetails) -> Problem:
    steps = [_printable(str(step)) for step in issue["loc"] if step != "[key]"]
    key = ".".join(steps)
    if issue["type"] == "extra_forbidden":
        return Problem(key, _unknown(steps))
    if issue["type"] == "missing":
        return Problem(key, f"is missing: {RULES[key]}")
    if issue["type"] == "value_error":
        return Problem(key, str(issue["ctx"]["error"]))
    if steps[:1] == ["mapping"] and len(steps) > 1:
        return Problem(key, f"must be JSON, not {kind(issue['input'])}")
    if issue["type"] == "invalid_key" or key not in RULES:
        return Problem(key, f"the key must be text, not {kind(issue['input'])}")
    if key == "environment":  # whatever it is, it may hold a secret
        return Problem(key, f"must be {RULES[key]}, not {kind(issue['input'])}")
    return Problem(key, f"must be {RULES[key]}, not {_shown(issue['input'])}")


def _unknown(steps: list[str]) -> str:
    parent = "".join(f"{step}." for step in steps[:-1])
    known = [rule.removeprefix(parent) for rule in RULES if rule.startswith(parent)]
    known = [rule for rule in known if "." not in rule]
    close = difflib.get_close_matches(steps[-1].lower(), known, n=1)
    hint = f"did you mean {parent}{close[0]}?" if close else f"the keys are {', '.join(known)}"
    return f"is not a parameter; {hint}"


def _table_order(problem: Problem) -> tuple[int, str]:
    keys = list(RULES)
    top = problem.where.partition(".")[0]
    return (keys.index(top) if top in keys else len(keys), problem.where if "." in problem.where else "")


def _shown(value: object) -> str:
    """A value as the user would recognise it in YAML or JSON, cut short."""
    if value is None or isinstance(value, dict | list | tuple):
        return kind(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def kind(value: object) -> str:
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "true or false"),
        ((int, float), "a number"),
        (str, "text"),
        (Mapping, "an object"),
        ((list, tuple), "a list"),
    )
    if value is None:
        return "nothing"
    return next((name for type_, name in kinds if isinstance(value, type_)), f"a {type(value).__name__}")


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)


def encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
