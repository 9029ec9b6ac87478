import json

import pytest
from hypothesis import given

from batch_pipeline.errors import InputFailed, ModelRefused
from batch_pipeline.models.mapping import generate, parse
from batch_pipeline.models.schema import leaves
from batch_pipeline_tests.models.packages import schema
from batch_pipeline_tests.models.test_schema import SCHEMAS

SAMPLE = {
    "type": "object",
    "properties": {
        "data": {
            "type": "object",
            "properties": {
                "req_data": {"type": "array", "items": [schema("input_1", "input_2", "input_3", "input_4")]}
            },
        }
    },
}


def changed(**leaf):
    """The sample's rule with other keys for its second value."""
    rule = json.loads(json.dumps(generate(SAMPLE)))
    values = rule["properties"]["data"]["properties"]["req_data"]["items"][0]["properties"]
    values["input_2"] = {"type": "number", **leaf}
    return rule


def test_the_sample_is_numbered_in_document_order():
    rule = generate(SAMPLE)
    values = rule["properties"]["data"]["properties"]["req_data"]["items"][0]["properties"]
    assert values == {f"input_{place + 1}": {"type": "number", "index": place} for place in range(4)}
    assert "index" not in json.dumps(SAMPLE)


def test_the_sample_row_becomes_the_sample_request():
    request = parse(None, SAMPLE, header=False).request([5.1, 3.5, 1.4, 0.2])
    assert request == {"data": {"req_data": [{"input_1": 5.1, "input_2": 3.5, "input_3": 1.4, "input_4": 0.2}]}}


@given(SCHEMAS)
def test_the_generated_rule_maps_every_leaf_in_order_and_survives_its_own_form(schema):
    mapping = parse(None, schema, header=False)
    assert [leaf.path for leaf in mapping.leaves] == [leaf.path for leaf in leaves(schema)]
    assert [leaf.index for leaf in mapping.leaves] == list(range(len(mapping.leaves)))
    assert parse(mapping.rule(), schema, header=False) == mapping
    assert parse(generate(schema), schema, header=False) == mapping
    assert json.loads(json.dumps(mapping.rule())) == mapping.rule()


@pytest.mark.parametrize("leaf", [{}, {"index": None}, {"index": -1}, {"index": 1.0}, {"index": True}, {"index": "1"}])
def test_a_leaf_without_a_usable_index_is_left_out(leaf):
    mapping = parse(changed(**leaf), SAMPLE, header=False)
    assert [found.index for found in mapping.leaves] == [0, 2, 3]
    assert mapping.request([1, 2, 3]) == {"data": {"req_data": [{"input_1": 1, "input_3": 2, "input_4": 3}]}}


@pytest.mark.parametrize("index", [2**31, 99999999999999999999, 10**400])
def test_an_index_that_no_column_can_have_is_refused_with_its_path(index):
    with pytest.raises(ModelRefused, match=r"at data\.req_data\[0\]\.input_2: an index is at most 2147483647"):
        parse(changed(index=index), SAMPLE, header=False)
    assert parse(changed(index=2**31 - 1), SAMPLE, header=False).leaves[1].index == 2**31 - 1


def test_leaves_keep_the_schema_s_order_whatever_the_rule_s():
    rule = {"properties": {"b": {"type": "number", "index": 0}, "a": {"type": "number", "index": 5}}}
    assert [leaf.index for leaf in parse(rule, schema("a", "b"), header=False).leaves] == [5, 0]


def test_all_left_out():
    mapping = parse({}, schema("a"), header=False)
    assert mapping.leaves == ()
    assert mapping.request([]) == {}
    assert parse(mapping.rule(), {"type": "array", "items": schema("a")}, header=False) == mapping


@pytest.mark.parametrize(
    ("rule", "where"),
    [
        (schema("a", "x"), "x"),
        (schema("a", kind="string"), "at a: the type is 'string'"),
        ({"type": "array", "items": schema("a")}, "(root)"),
        ({"type": "object", "properties": {"a": 3}}, "at a"),
        ({"type": "object", "properties": {"a": {"type": "object", "properties": {}}}}, "at a"),
        ({"type": "object", "properties": 3}, "properties"),
        ({"type": "object", "properties": {"a": {"type": "number", "column": "x"}}}, "csv.header"),
    ],
)
def test_a_rule_of_another_shape_is_refused_with_its_path(rule, where):
    with pytest.raises(ModelRefused) as refused:
        parse(rule, schema("a"), header=False)
    assert where in refused.value.message


@pytest.mark.parametrize("keys", [{"column": 3}, {"column": "x", "index": 1}])
def test_a_column_is_a_name_and_stands_alone(keys):
    with pytest.raises(ModelRefused, match="input_2"):
        parse(changed(**keys), SAMPLE, header=True)


def test_column_names_are_found_in_the_header():
    mapping = parse(changed(column="width"), SAMPLE, header=True)
    resolved = mapping.resolve(["x", "length", "width", "y"])
    assert [leaf.index for leaf in resolved.leaves] == [0, 2, 2, 3]
    assert resolved.rule() == mapping.rule()
    assert parse(mapping.rule(), SAMPLE, header=True) == mapping
    for header in (["x"], ["width", "width"]):
        with pytest.raises(InputFailed, match="'width'") as failed:
            mapping.resolve(header)
        assert failed.value.code == "column_missing"
