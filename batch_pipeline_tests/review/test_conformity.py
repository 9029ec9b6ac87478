"""Answers against the response schema of config.json: only what the schema says, named by path."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from batch_pipeline.review import conformity as room
from batch_pipeline.review.conformity import conformity, strict
from batch_pipeline.review.sampling import Answer

IMAGES = {
    "type": "object",
    "properties": {
        "predicted_label": {"type": "string"},
        "scores": {
            "type": "array",
            "items": [
                {"type": "array", "minItems": 2, "maxItems": 2, "items": [{"type": "string"}, {"type": "number"}]}
            ],
        },
    },
}
ROWS = {"type": "object", "properties": {"data": {"type": "array", "items": {"properties": {"y": {"type": "number"}}}}}}
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["string", "number", "object"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "items", "required", "enum", "minimum", "minItems", "$ref", "pattern", "a"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


def answers(*values):
    return [Answer(line, 0, 10, value) for line, value in enumerate(values, 1)]


def paths(schema, *values):
    found = conformity(answers(*values), schema)
    assert found is not None
    assert (found.checked, found.mismatches) == (len(values), len(found.first))
    return [(one["line"], one["path"]) for one in found.first]


def test_without_a_response_schema_there_is_nothing_to_check():
    assert conformity(answers({"a": 1}), None) is None
    assert conformity(answers({"a": 1}), {}) is None


def test_answers_that_are_as_the_schema_says():
    assert paths(IMAGES, {"predicted_label": "rose", "scores": [["rose", 0.9], ["tulip", 0.1]]}) == []
    assert paths(ROWS, {"data": [{"y": 1.5}, {"y": None}]}, {"data": None}, {}) == []


@pytest.mark.parametrize(
    ("schema", "answer", "path"),
    [
        (IMAGES, {"predicted_label": 3}, "predicted_label"),
        (IMAGES, {"scores": [["rose", 0.9], ["tulip"]]}, "scores[1]"),
        (IMAGES, {"scores": [["rose", "0.9"]]}, "scores[0][1]"),
        (ROWS, {"data": [{"y": 1}, {"y": "1"}]}, "data[1].y"),
        (ROWS, {"data": [{"y": True}]}, "data[0].y"),
        (ROWS, [1], "(root)"),
        ({"type": "integer"}, 1.5, "(root)"),
        ({"type": "object", "required": ["y"]}, {}, "(root)"),
        ({"type": "object", "properties": {"y": {"enum": ["a", "b"]}}}, {"y": "c"}, "y"),
        ({"type": "object", "properties": {"y": {"type": "number", "minimum": 0}}}, {"y": -1}, "y"),
    ],
)
def test_a_mismatch_is_named_by_its_path(schema, answer, path):
    assert paths(schema, {}, answer)[-1:] == [(2, path)]


def test_an_answer_that_is_no_object_stands_under_output_beside_its_row():
    schema = {"type": "array", "items": {"type": "number"}}
    assert paths(schema, {"output": [0.5]}, [0.5]) == []
    assert paths(schema, {"output": ["x"]}) == [(1, "[0]")]


def test_messages_are_short_and_only_the_first_are_named():
    found = conformity(answers(*["x" * 1000] * 50), {"type": "number"})
    assert found is not None
    assert (found.mismatches, len(found.first)) == (50, room.FIRST)
    assert all(len(one["message"]) <= 200 for one in found.first)


def test_what_is_checked_is_bounded_and_spread_over_all():
    many = [Answer(line, 0, 100, {"y": line}) for line in range(100_000)]
    schema = {"type": "object", "properties": {"y": {"type": "integer", "maximum": 99_000}}}
    found = conformity(many, schema)
    assert found is not None
    assert room.MOST_CHECKED / 2 < found.checked <= room.MOST_CHECKED
    assert found.mismatches > 0
    long = [Answer(line, 0, 100_000, {"y": 1}) for line in range(100)] + [Answer(1, 0, room.MOST_BYTES + 1, {"y": "x"})]
    found = conformity(long, schema)
    assert found is not None
    assert 0 < found.checked <= room.MOST_BYTES // 100_000
    assert found.mismatches == 0


@settings(deadline=None)
@given(ODD)
def test_whatever_config_json_says_becomes_a_schema_that_can_be_checked_by(schema):
    Draft202012Validator.check_schema(strict(schema))
    if isinstance(schema, dict) and schema:
        conformity(answers({"a": [1]}, None, "x"), schema)
