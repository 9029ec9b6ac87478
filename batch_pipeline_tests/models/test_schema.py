import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipeline.errors import ModelRefused
from batch_pipeline.models.binding import Leaf
from batch_pipeline.models.schema import hole, leaves, schema_of


def objects(children):
    return st.dictionaries(st.text(min_size=1, max_size=4), children, min_size=1, max_size=4).map(
        lambda found: {"type": "object", "properties": found}
    )


BASIC = st.sampled_from(["string", "number", "integer", "boolean"]).map(lambda kind: {"type": kind})
SCHEMAS = st.recursive(
    BASIC,
    lambda children: objects(children) | children.map(lambda one: {"type": "array", "items": [one]}),
    max_leaves=12,
)


@given(SCHEMAS)
def test_leaves_and_schema_of_are_each_other_s_reverse(schema):
    assert leaves(schema_of(leaves(schema))) == leaves(schema)


def test_items_may_be_a_schema_or_a_list_of_one():
    one = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "string"}}}
    expected = (Leaf(("rows", 0, "b"), "integer"), Leaf(("rows", 0, "a"), "string"))
    for items in (one, [one]):
        assert leaves({"type": "object", "properties": {"rows": {"type": "array", "items": items}}}) == expected


@pytest.mark.parametrize("schema", [None, {}, {"type": "object"}, {"type": "object", "properties": {}}, {"items": []}])
def test_a_schema_may_have_no_leaves(schema):
    assert leaves(schema) == ()


def test_a_type_that_goes_without_saying():
    assert leaves({"properties": {"a": {"items": {"type": ["number", "null"]}}}}) == (Leaf(("a", 0), "number"),)


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ({"type": "object", "properties": {"a": {"type": "array", "items": [{"type": "float"}]}}}, "a[0].type"),
        ({"type": "object", "properties": {"a": {}}}, "a.type"),
        ({"type": "object", "properties": {"a": 1}}, "a:"),
        ({"type": "object", "properties": []}, "properties"),
        ({"type": "array", "items": [{"type": "number"}, {"type": "number"}]}, "items"),
        ({"type": "array", "items": "number"}, "items"),
        ({"type": "object", "properties": {"a": {"type": ["number", "string"]}}}, "a"),
        ({"type": 3}, "type"),
    ],
)
def test_what_is_no_schema_is_refused_with_its_path(schema, where):
    with pytest.raises(ModelRefused) as refused:
        leaves(schema)
    assert where in refused.value.message


def test_the_hole_of_a_schema_with_no_leaves():
    rows = {"type": "array", "items": [{"type": "object", "properties": {}}]}
    assert hole({"type": "object", "properties": {"data": rows}}) == ("data", 0)
    assert hole(None) == hole({"type": "object", "properties": {}}) == ()
