"""Requests and responses bound to what real tools export, and to graphs made to be awkward."""

import pickle

import pytest
from onnx import TensorProto, helper

from batch_pipeline.errors import ModelRefused
from batch_pipeline.models.binder import bind, check_mapping
from batch_pipeline.models.binding import Leaf, Tensor
from batch_pipeline.models.mapping import generate, parse
from batch_pipeline.models.onnx_model import OnnxModel, inspect
from batch_pipeline.models.package import PackageConfig
from batch_pipeline.models.schema import schema_of
from batch_pipeline_tests.models.packages import EXPORTED, FILE_REQUEST, api, config, schema


def bound(model, entry=None, labels=None, **keys):
    """The binding of an exported model, or of an OnnxModel, for one API."""
    onnx = model if isinstance(model, OnnxModel) else inspect(EXPORTED / f"{model}.onnx")
    settings = PackageConfig.model_validate(config(entry or api(), **keys))
    return bind(settings, settings.apis[0], onnx, labels)


def refusal(*args, **keys):
    with pytest.raises(ModelRefused) as refused:
        bound(*args, **keys)
    assert "\n" not in refused.value.message
    return refused.value.message


def filled(binding):
    """ONNX input → names of the leaves that fill it."""
    return {one.tensor.name: [binding.leaves[place].path[-1] for place in one.leaves] for one in binding.columns}


def answered(binding):
    return [(leaf.path, leaf.output, leaf.form) for leaf in binding.response]


def graph(inputs, outputs=(("y", "float32", (None,)),)):
    return OnnxModel(*(tuple(Tensor(*one) for one in side) for side in (inputs, outputs)))


# --- requests ----------------------------------------------------------------------------------------------


def test_leaves_side_by_side_in_schema_order():
    binding = bound("logistic", api({"type": "array", "items": [schema("d", "c", "b", "a")]}))
    assert filled(binding) == {"X": ["d", "c", "b", "a"]}
    assert (binding.batch, binding.kind) == (None, "json")
    assert pickle.loads(pickle.dumps(binding)) == binding


def test_inputs_named_like_leaves_take_a_column_each():
    request = schema(price="number", weight="number", unused="string", size="string", colour="string")
    names = filled(bound("named_columns", api(request)))
    assert names == {name: [name] for name in ("colour", "size", "weight", "price")}


def test_onnx_inputs_says_by_name_path_or_holder():
    request = {"type": "object", "properties": {"who": schema(id="integer"), "what": schema("cost")}}
    for inputs in (
        {"item": "id", "price": "what.cost"},
        {"item": "who", "price": ["what"]},
        {"who.id": "item", "cost": "price"},
    ):
        binding = bound("two_inputs", api(request), onnx={"inputs": inputs})
        assert filled(binding) == {"item": ["id"], "price": ["cost"]}
        assert filled(bound("two_inputs", api(request, inputs=inputs))) == filled(binding)
        assert filled(bound("two_inputs", api(request, onnx={"inputs": inputs}), onnx={"inputs": {"x": 1}}))


def test_onnx_inputs_may_order_and_leave_out_leaves():
    binding = bound("logistic", api(schema("a", "b", "c", "d", "e"), inputs={"X": ["e", "a", "b", "c"]}))
    assert filled(binding) == {"X": ["e", "a", "b", "c"]}
    assert len(binding.leaves) == 5


@pytest.mark.parametrize("request_schema", [None, {}, {"type": "object", "properties": {}}])
def test_a_request_without_leaves_gets_them_from_the_inputs(request_schema):
    binding = bound("logistic", api(request_schema))
    assert [leaf.path for leaf in binding.leaves] == [("X_1",), ("X_2",), ("X_3",), ("X_4",)]
    binding = bound("named_columns", api(request_schema))
    assert binding.leaves[:3] == (Leaf(("colour",), "string"), Leaf(("size",), "string"), Leaf(("weight",), "number"))
    assert parse(None, schema_of(binding.leaves), header=False).request(["red", "s", 1.0, 2.0])["size"] == "s"


def test_leaves_from_inputs_stand_where_the_schema_is_empty():
    rows = {"type": "array", "items": [{"type": "object", "properties": {}}]}
    binding = bound("two_inputs", api({"type": "object", "properties": {"data": rows}}))
    assert binding.leaves == (Leaf(("data", 0, "item"), "integer"), Leaf(("data", 0, "price"), "number"))


@pytest.mark.parametrize(
    ("inputs", "request_schema", "said"),
    [
        ([("x", "float32", (None, 4))], schema("a", "b", "c"), "3 values"),
        ([("x", "float32", (None, 4))], schema("a", "b", "c", d="string"), "d is a string"),
        ([("x", "string", (None, 1))], schema("a"), "a is a number"),
        ([("x", "float32", (None, None))], None, "how many columns"),
        ([("x", "float32", (None, 3, 8, 8))], None, "how many columns"),
        ([("x", "float32", (None, 3, 8, 8))], schema("a"), "x float32[N, 3, 8, 8]"),
        ([("x", "float32", ())], schema("a"), "x float32[]"),
        ([("x", "bfloat16", (None, 1))], schema("a"), "neither numbers nor strings"),
        ([("a", "float32", (None,)), ("c", "float32", (None,))], schema("a", "b"), "nothing fills"),
        ([("a", "float32", (None, 2)), ("b", "float32", (None,))], schema("a", "b"), "1 values cannot fill"),
        ([("a", "float32", (1, 1)), ("b", "float32", (2, 1))], schema("a", "b"), "batch sizes"),
        ([("a", "float32", (None,))], {"type": "object", "properties": {"a": {"type": "text"}}}, "a.type: 'text'"),
    ],
)
def test_requests_that_do_not_fit(inputs, request_schema, said):
    assert said in refusal(graph(inputs), api(request_schema))


def test_two_leaves_of_one_name_are_no_match():
    request = {"type": "object", "properties": {"l": schema("a"), "r": schema("a", "b")}}
    assert "nothing fills" in refusal(graph([("a", "float32", (None,)), ("b", "float32", (None,))]), api(request))


@pytest.mark.parametrize(
    "inputs", [{"x": "a"}, {"X": "nothing"}, {"X": ["a", "b"]}, {"X": 3}, {"X": [["a"]]}, {"X": {}}]
)
def test_onnx_inputs_that_do_not_fit(inputs):
    assert "X" in refusal("logistic", api(schema("a", "b", "c", "d"), inputs=inputs))


def test_a_fixed_batch_is_kept():
    assert bound(graph([("x", "float32", (8, 2))]), api(schema("a", "b"))).batch == 8
    assert bound(graph([("a", "float32", (1,)), ("b", "int64", (None, 1))]), api(schema("a", "b"))).batch == 1


def test_a_model_that_takes_nothing():
    assert bound(graph([]), api()).columns == ()


def test_a_mapping_must_give_the_model_what_it_needs():
    request = schema("a", "b", "c", "d", "e")
    binding = bound("logistic", api(request, inputs={"X": ["a", "b", "c", "d"]}))
    rule = generate(request)
    rule["properties"]["e"].pop("index")
    check_mapping(binding, parse(rule, request, header=False))
    rule["properties"]["b"]["index"] = -1
    rule["properties"]["c"] = {"type": "number"}
    with pytest.raises(ModelRefused, match="b, c"):
        check_mapping(binding, parse(rule, request, header=False))


# --- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "layout", "batch"),
    [("images_nchw", "NCHW", None), ("images_nchw_batch_1", "NCHW", 1), ("images_nhwc", "NHWC", None)],
)
def test_exported_image_models(model, layout, batch):
    binding = bound(model, {"request": FILE_REQUEST})
    file = binding.file
    assert file is not None
    assert (file.form, file.layout, file.height, file.width, file.channels) == ("image", layout, 8, 8, 3)
    assert (binding.kind, binding.batch, binding.columns, binding.leaves) == ("file", batch, (), ())


@pytest.mark.parametrize(("model", "batch"), [("file_bytes", 1), ("file_text", None)])
def test_models_that_take_a_file_s_bytes(model, batch):
    binding = bound(model, {"request": FILE_REQUEST})
    assert binding.file is not None
    assert (binding.file.form, binding.batch) == ("bytes", batch)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((None, None, None, None), "NCHW"),
        ((1, 1, 28, 28), "NCHW"),
        ((1, 28, 28, 1), "NHWC"),
        ((None, None, None, 3), "NHWC"),
        ((None, 3, None, None), "NCHW"),
        ((None, 224, 224, None), "NHWC"),
    ],
)
def test_layouts(shape, layout):
    binding = bound(graph([("x", "uint8", shape)]), {"request": FILE_REQUEST})
    assert binding.file is not None
    assert binding.file.layout == layout


@pytest.mark.parametrize(
    "inputs",
    [
        [("x", "float32", (None, 4))],
        [("x", "float32", (None, 5, 8, 8))],
        [("x", "bool", (None, 3, 8, 8))],
        [("x", "string", (None, 2))],
        [("x", "float32", (None, 3, 8, 8)), ("size", "int64", (2,))],
        [],
    ],
)
def test_files_that_do_not_fit(inputs):
    assert "a file fills" in (said := refusal(graph(inputs), {"request": FILE_REQUEST})) or "one file fills" in said


# --- responses ---------------------------------------------------------------------------------------------


def held(**keys):
    """`{"data": {"resp_data": [{…}]}}`: the shape that an empty schema has in the original's own samples."""
    rows = {"type": "array", "items": [{"type": "object", **keys}]}
    return {"type": "object", "properties": {"data": {"type": "object", "properties": {"resp_data": rows}}}}


def test_a_response_without_leaves_holds_the_outputs_under_their_names():
    base = ("data", "resp_data", 0)
    for model, label, scores in (
        ("logistic", "label", "probabilities"),
        ("logistic_zipmap", "output_label", "output_probability"),
    ):
        found = answered(bound(model, api(None, held(properties={}))))
        assert [one[:2] for one in found] == [((*base, label), label), ((*base, scores), scores)]


def test_an_empty_object_holds_a_zipmap_where_it_has_its_name_or_may_have_any_property():
    name = "output_probability"
    empty = {"type": "object", "properties": {name: {"type": "object", "properties": {}}}}
    assert answered(bound("logistic_zipmap", api(None, empty))) == [((name,), name, "map")]
    assert answered(bound("logistic_zipmap", api(None, held()))) == [(("data", "resp_data", 0), name, "map")]


@pytest.mark.parametrize("outputs", [{"output_probability": "scores"}, {"scores": "output_probability"}])
def test_onnx_outputs_puts_a_zipmap_into_an_object_with_properties(outputs):
    response = schema(label="string")
    response["properties"]["scores"] = schema("setosa", "versicolor", "virginica")
    found = answered(bound("logistic_zipmap", api(None, response, onnx={"outputs": outputs})))
    assert found == [(("label",), "output_label", "scalar"), (("scores",), "output_probability", "map")]


def test_without_a_schema_outputs_keep_their_names():
    assert answered(bound("logistic_zipmap")) == [
        (("output_label",), "output_label", "any"),
        (("output_probability",), "output_probability", "map"),
    ]


def test_outputs_by_name_then_by_order():
    response = {
        "type": "object",
        "properties": {"data": schema(first="integer"), "scores": {"type": "array", "items": {"type": "number"}}},
    }
    assert answered(bound("two_inputs", api(None, response))) == [
        (("data", "first"), "best", "scalar"),
        (("scores",), "scores", "array"),
    ]


def test_outputs_nobody_asked_for_are_dropped():
    rows = {"type": "array", "items": [schema(predict_result="string")]}
    response = {"type": "object", "properties": {"data": {"type": "object", "properties": {"resp_data": rows}}}}
    assert answered(bound("logistic_zipmap", api(None, response))) == [
        (("data", "resp_data", 0, "predict_result"), "output_label", "scalar")
    ]


@pytest.mark.parametrize(
    "probability", [{"type": "object"}, {"type": "object", "properties": {"setosa": {"type": "number"}}}]
)
def test_a_zipmap_is_an_object(probability):
    response = {"type": "object", "properties": {"output_probability": probability}}
    assert answered(bound("logistic_zipmap", api(None, response))) == [
        (("output_probability",), "output_probability", "map")
    ]


def test_onnx_outputs_says():
    outputs = [("a", "float32", (None,)), ("b", "float32", (None, 1)), ("c", "float32", (None, 2, 2))]
    model = graph([("x", "float32", (None,))], outputs)
    matrix = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    response = {"type": "object", "properties": {"p": {"type": "number"}, "q": {"type": "number"}, "m": matrix}}
    for said in ({"a": "q"}, {"q": "a"}, {"b": "p", "q": "a"}):
        assert answered(bound(model, api(None, response, outputs=said))) == [
            (("p",), "b", "scalar"),
            (("q",), "a", "scalar"),
            (("m",), "c", "matrix"),
        ]
    renamed = bound(model, api(outputs={"c": "corners", "a": "size"}))
    assert answered(renamed) == [(("size",), "a", "any"), (("corners",), "c", "any")]


def test_an_output_of_unknown_width_is_taken_last():
    outputs = [("p", "float32", (None, None)), ("q", "float32", (None, 1))]
    model = graph([("x", "float32", (None,))], outputs)
    assert answered(bound(model, api(None, schema("a", "b")))) == [(("a",), "q", "scalar"), (("b",), "p", "scalar")]


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (schema("a", "b", "c"), "no ONNX output is left for a"),
        (schema(label="integer"), "label (scalar of integer) cannot hold the ONNX output label string[N]"),
        ({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}}}, "no ONNX output"),
        ({"type": "object", "properties": {"a": {"type": "float"}}}, "a.type: 'float'"),
        ({"type": "object", "properties": {"a": {"type": "object"}}}, "no ONNX output is left for a (map)"),
    ],
)
def test_responses_that_do_not_fit(response, said):
    assert said in refusal("logistic", api(None, response))


@pytest.mark.parametrize("outputs", [{"nothing": "a"}, {"label": "x"}, {"label": 3}])
def test_onnx_outputs_that_do_not_fit(outputs):
    assert "onnx.outputs" in refusal("logistic", api(None, schema(a="string"), outputs=outputs))


def test_every_reason_is_named():
    said = refusal("named_columns", api(schema("colour", "x"), schema("a", "b")))
    assert "nothing fills" in said or "colour is a number" in said
    assert "for a (scalar of number)" in said
    assert "for b (scalar of number)" in said


def test_an_output_json_cannot_hold():
    assert "seq(tensor(float))" in refusal(graph([], [("y", "seq(tensor(float))", ())]))


# --- image_classification ----------------------------------------------------------------------------------

CLASSIFIER = {
    "request": FILE_REQUEST,
    "response": {
        "data": {
            "type": "object",
            "properties": {
                "predicted_label": {"type": "string"},
                "scores": {"type": "array", "items": [{"type": "array", "items": {"type": "string"}}]},
            },
        }
    },
}


@pytest.mark.parametrize("entry", [CLASSIFIER, {"request": FILE_REQUEST}])
def test_class_scores(entry):
    binding = bound("images_nchw", entry, ("a", "b", "c"), model_algorithm="image_classification")
    assert (binding.classification, binding.labels) == (True, ("a", "b", "c"))
    assert answered(binding) == [(("scores",), "logits", "array")]


def test_class_scores_among_other_outputs():
    outputs = [("features", "float32", (None, 16)), ("scores", "float32", (None, 3, 1, 1)), ("id", "int64", (None,))]
    model = graph([("x", "float32", (None, 3, 8, 8))], outputs)
    algorithm = {"model_algorithm": "image_classification"}
    assert answered(bound(model, CLASSIFIER, ("a", "b", "c"), **algorithm))[0][1] == "scores"
    assert answered(bound(model, CLASSIFIER | {"outputs": {"scores": "x"}}, **algorithm))[0][1] == "scores"
    assert answered(bound(model, CLASSIFIER | {"labels": ["a", "b", "c"]}, **algorithm))[0][1] == "scores"


def test_labels_must_be_as_many_as_classes():
    algorithm = {"model_algorithm": "image_classification"}
    assert "labels: there are 2" in refusal("images_nchw", CLASSIFIER, ("a", "b"), **algorithm)
    assert "class scores" in refusal("file_text", CLASSIFIER, **algorithm)
    free = graph([("x", "float32", (None, 3, 8, 8))], [("y", "float32", (None, None))])
    assert bound(free, CLASSIFIER, ("a", "b"), **algorithm).labels == ("a", "b")


# --- the ONNX file -----------------------------------------------------------------------------------------


def test_element_types_have_numpy_s_names(tmp_path):
    kinds = ["FLOAT", "DOUBLE", "FLOAT16", "INT8", "UINT8", "INT32", "INT64", "BOOL", "STRING"]
    names = [kind.lower() for kind in kinds]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names]
    shapes = [
        [
            helper.make_tensor_value_info(f"{name}{end}", getattr(TensorProto, kind), ["batch", 2])
            for name, kind in zip(names, kinds, strict=True)
        ]
        for end in ("", "_out")
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", *shapes), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    found = inspect(tmp_path / "m.onnx")
    expected = ["float32", "float64", "float16", "int8", "uint8", "int32", "int64", "bool", "string"]
    assert [tensor.element for tensor in found.inputs] == expected
    assert {tensor.shape for tensor in found.outputs} == {(None, 2)}


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x09\x12\x00"])
def test_a_broken_file_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelRefused, match=r"^m\.onnx does not load: .+") as refused:
        inspect(tmp_path / "m.onnx")
    assert "\n" not in refused.value.message
    assert str(tmp_path) not in refused.value.message
