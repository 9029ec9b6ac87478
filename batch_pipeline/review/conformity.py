"""Whether answers are what the response schema of the model's API says. Names paths; knows no storage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batch_pipeline.models.schema import Schema, json_path
from batch_pipeline.review.sampling import Answer

MOST_CHECKED = 2_000
MOST_BYTES = 512 * 1024
"""Checking is slow, some 10 µs a value."""
FIRST = 10
_MESSAGE = 200
_TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")
_COUNTS = ("minItems", "maxItems")
_BOUNDS = ("minimum", "maximum")


@dataclass(frozen=True)
class Conformity:
    """How many answers were checked, how many are not as the schema says, and the first of those."""

    checked: int
    mismatches: int
    first: tuple[dict[str, Any], ...]
    """{"line" of the input, "place": the byte of its result, "path", "message"}."""


def conformity(answers: Sequence[Answer], response: Schema | None) -> Conformity | None:
    """Checks answers spread over the sample; None where the API says nothing of its responses."""
    if not response:
        return None
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(strict(response))
    wraps = response.get("type", "object") != "object"
    checked = mismatches = 0
    first: list[dict[str, Any]] = []
    for answer in _spread(answers):
        checked += 1
        value = answer.value
        if wraps and isinstance(value, dict) and set(value) == {"output"}:
            value = value["output"]  # an answer that is not an object stands there beside its row
        error = next(validator.iter_errors(value), None)
        if error is None:
            continue
        mismatches += 1
        if len(first) < FIRST:
            path = json_path(tuple(error.absolute_path))
            message = error.message if len(error.message) <= _MESSAGE else error.message[: _MESSAGE - 1] + "…"
            first.append({"line": answer.line, "place": answer.place, "path": path, "message": message})
    return Conformity(checked, mismatches, tuple(first))


def strict(schema: object) -> dict[str, Any]:
    """The schema of config.json as JSON Schema 2020-12; what it says that no answer can be checked by is left out.

    `items` may be a list of one, which is every element's; any value may be null, as NaN is.
    """
    if not isinstance(schema, Mapping):
        return {}
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    found: dict[str, Any] = {}
    if isinstance(kinds, list) and kinds and all(kind in _TYPES for kind in kinds):
        found["type"] = [*dict.fromkeys((*kinds, "null"))]
    properties, items, required = schema.get("properties"), schema.get("items"), schema.get("required")
    if isinstance(properties, Mapping):
        found["properties"] = {str(name): strict(inner) for name, inner in properties.items()}
    if isinstance(required, list) and all(isinstance(name, str) for name in required):
        found["required"] = [*dict.fromkeys(required)]
    if isinstance(items, list) and len(items) > 1:
        found["prefixItems"] = [strict(inner) for inner in items]
    elif items:
        found["items"] = strict(items[0] if isinstance(items, list) else items)
    if isinstance(schema.get("enum"), list):
        found["enum"] = [*schema["enum"], None]
    return found | _limits(schema)


def _limits(schema: Mapping[str, Any]) -> dict[str, Any]:
    counts = {key: schema[key] for key in _COUNTS if type(schema.get(key)) is int and schema[key] >= 0}
    return counts | {key: schema[key] for key in _BOUNDS if type(schema.get(key)) in (int, float)}


def _spread(answers: Sequence[Answer]) -> Iterator[Answer]:
    """As many as may be checked, evenly over all; one that is larger than that alone is passed over."""
    answers = [answer for answer in answers if answer.size <= MOST_BYTES]
    size = sum(answer.size for answer in answers)
    step = max(1, -(-len(answers) // MOST_CHECKED), -(-size // MOST_BYTES))
    yield from answers[::step]
