"""What makes a package normal or abnormal, judged from real folders."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from batch_pipeline.models.binder import bind
from batch_pipeline.models.status import Inspection, inspect_package
from batch_pipeline_tests.models.packages import EXPORTED, FILE_REQUEST, api, config, schema, write

IRIS = ["logistic", "logistic_zipmap", "lightgbm"]


def reasons(folder):
    return "\n".join(inspect_package(folder).reasons)


@pytest.mark.parametrize("model", [*IRIS, "mlp_regressor", "named_columns", "two_inputs"])
def test_exported_table_models_are_normal(tmp_path, model):
    assert inspect_package(write(tmp_path, model, config())).reasons == ()


@pytest.mark.parametrize("model", ["images_nchw", "images_nchw_batch_1", "images_nhwc", "file_bytes", "file_text"])
def test_exported_file_models_are_normal(tmp_path, model):
    found = inspect_package(write(tmp_path, model, config({"url": "/x", "request": FILE_REQUEST})))
    assert found.reasons == ()
    assert found.config is not None
    assert found.config.apis[0].kind == "file"


def test_the_judgement_survives_json(tmp_path):
    content = config(api(schema("a", "b", "c", "d"), **{"x-y": [1, None]}), runtime="python3.11", metrics={"f1": 0.9})
    found = inspect_package(write(tmp_path, "logistic", content, labels_txt="a\nb\n"))
    adapter = TypeAdapter(Inspection)
    assert adapter.validate_json(adapter.dump_json(found, by_alias=True)) == found
    assert found.config is not None
    assert (found.config.model_extra or {})["runtime"] == "python3.11"
    assert found.config.metrics == {"f1": 0.9}


def test_keys_it_does_not_know_are_kept_and_ignored(tmp_path):
    unknown = {"runtime": "python3.6", "dependencies": [{"installer": "pip"}], "health": {"url": "/health"}}
    entry = api(schema("a", "b", "c", "d"), init={"seconds": 3})
    content = config(entry, **unknown, onnx={"opset": 17})
    found = inspect_package(write(tmp_path, "logistic", content))
    assert found.reasons == ()
    assert found.config is not None
    assert found.config.model_extra == unknown
    assert found.config.entries == [entry]
    assert found.config.onnx.model_extra == {"opset": 17}


def test_schemas_stand_in_data_or_in_the_body_itself(tmp_path):
    columns = schema("a", "b", "c", "d")
    for request in ({"data": columns}, columns, {"Content-type": "application/json", **columns}):
        found = inspect_package(write(tmp_path, "logistic", config({"request": request})))
        assert found.reasons == ()
        assert found.config is not None
        read = found.config.apis[0].request_schema
        assert read is not None
        assert read["properties"] == columns["properties"]


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("multipart/form-data", "file"),
        ("Multipart/Form-Data; boundary=x", "file"),
        ("application/json", "json"),
        (None, "json"),
    ],
)
@pytest.mark.parametrize("key", ["Content-type", "Content-Type", "content-type"])
def test_a_file_api_is_multipart_with_one_file(tmp_path, key, content_type, kind):
    request = {key: content_type, "data": FILE_REQUEST["data"]}
    found = inspect_package(write(tmp_path, "images_nchw", config({"request": request})))
    assert found.config is not None
    assert found.config.apis[0].kind == kind
    assert bool(found.reasons) == (kind == "json")


def test_two_files_are_no_file_api(tmp_path):
    request = {**FILE_REQUEST, "data": schema("a", "b", kind="file")}
    assert "a.type: 'file'" in reasons(write(tmp_path, "images_nchw", config({"request": request})))


def test_an_api_has_defaults(tmp_path):
    found = inspect_package(write(tmp_path, "logistic", config({}, {"url": "/second", "method": "get"})))
    assert found.reasons == ()
    assert found.config is not None
    assert [(one.url, one.protocol, one.method) for one in found.config.apis] == [
        ("/", "http", "post"),
        ("/second", "http", "get"),
    ]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model_algorithm": None}, "model_algorithm: missing"),
        ({"model_algorithm": "1a"}, "model_algorithm: '1a' must start with a letter"),
        ({"model_algorithm": ""}, "model_algorithm: ''"),
        ({"model_algorithm": "a" * 37}, "at most 36"),
        ({"model_algorithm": 3}, "model_algorithm: input should be a valid string"),
        ({"model_type": "TensorFlow"}, "model_type: 'TensorFlow'; ONNX is expected"),
        ({"model_type": None}, "model_type: missing"),
        ({"apis": None}, "apis: missing"),
        ({"apis": []}, "apis: missing"),
        ({"apis": {}}, "apis: input should be a valid list"),
        ({"apis": ["x"]}, "apis[0]: input should be"),
        ({"apis": [{"url": 1}]}, "apis[0].url: a text"),
        ({"apis": [{"request": []}]}, "apis[0].request: an object"),
        ({"apis": [{"request": {"data": []}}]}, "apis[0].request.data: an object"),
        ({"apis": [{}, {"url": "/"}]}, "apis[1].url: '/' is the url of another API"),
        ({"metrics": 1}, "metrics: input should be"),
        ({"onnx": "x"}, "onnx: input should be"),
        ({"onnx": {"model_file": 3}}, "onnx.model_file: input should be"),
        ({"onnx": {"labels": "a"}}, "onnx.labels: a list"),
        ({"onnx": {"labels": []}}, "onnx.labels: a list"),
        ({"onnx": {"labels": ["a", None]}}, "onnx.labels: every label"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label: the keys must be 0 to 1"),
        ({"onnx": {"model_file": "other.onnx"}}, "other.onnx is missing"),
        ({"onnx": {"model_file": "../model.onnx"}}, "is missing"),
        ({"onnx": {"model_file": ""}}, "is missing"),
    ],
)
def test_broken_rules_are_named(tmp_path, keys, said):
    (tmp_path / "model.onnx").write_bytes((EXPORTED / "logistic.onnx").read_bytes())
    found = reasons(write(tmp_path / "package", "logistic", config(**keys)))
    assert said in found
    assert found.count("\n") == 0


def test_a_model_has_1000_apis_at_most(tmp_path):
    apis = [api(schema("a", "b", "c", "d"), url=f"/{number}") for number in range(1000)]
    found = inspect_package(write(tmp_path, "logistic", config(*apis)))
    assert found.reasons == ()
    assert found.config is not None
    assert [one.url for one in found.config.apis] == [one["url"] for one in apis]
    found = inspect_package(write(tmp_path, "logistic", config(*apis, api(url="/one more"))))
    assert found.reasons == ("config.json: apis: 1,001 are more than a model may have, which is 1,000",)
    assert found.config is not None
    assert found.config.apis == ()


def test_the_reasons_of_many_apis_end(tmp_path):
    apis = [api(schema("a"), url=f"/{number}") for number in range(1000)]
    found = inspect_package(write(tmp_path, "logistic", config(*apis))).reasons
    assert len(found) == 101
    assert found[-1] == "there may be more that is wrong with its other APIs"


SPELLINGS = ["./model.onnx", "model.onnx/", "model.onnx/.", "a/../model.onnx", ".//model.onnx"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_model_file_is_named_as_it_is_spelt(tmp_path, spelling):
    folder = write(tmp_path, "logistic", config(onnx={"model_file": spelling}))
    (reason,) = inspect_package(folder).reasons
    assert reason == f"config.json: onnx.model_file: {spelling!r} must be spelt as the file is named: 'model.onnx'"


def test_a_model_file_in_a_folder_of_the_package(tmp_path):
    folder = write(tmp_path, None, config(onnx={"model_file": "onnx/model.onnx"}))
    (folder / "onnx").mkdir()
    (folder / "onnx/model.onnx").write_bytes((EXPORTED / "logistic.onnx").read_bytes())
    assert reasons(folder) == ""


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 5000, "\0", "\n", "model.onnx\0", "/etc/hostname", ".", "/"])
def test_a_model_file_that_no_file_can_be_called(tmp_path, name):
    (reason,) = inspect_package(write(tmp_path, "logistic", config(onnx={"model_file": name}))).reasons
    assert "missing" in reason or len(reason) == 500
    assert reason.isprintable()


def test_a_name_of_36_characters_is_allowed(tmp_path):
    assert not reasons(write(tmp_path, "logistic", config(model_algorithm="a" * 36, metrics=None, source_type="auto")))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000])
def test_a_config_that_is_no_object(tmp_path, content):
    assert "config.json" in reasons(write(tmp_path, "logistic", content))


def test_every_reason_is_found(tmp_path):
    content = config(
        api(schema("a")),
        api(None, schema("x", kind="boolean"), url="/b"),
        {"url": "/c", "request": 1},
        model_algorithm="?",
        model_type="MXNet",
        metrics=3,
    )
    write(tmp_path, "logistic", content, labels_txt="\n")
    (tmp_path / "preprocessor_config.json").write_text("{}x")
    found = reasons(tmp_path)
    for said in (
        "model_algorithm",
        "model_type",
        "metrics",
        "apis[2].request",
        "API /: request: 1 value",
        "API /b: response",
        "labels.txt is empty",
        "preprocessor_config.json is not JSON",
    ):
        assert said in found


def test_an_unfinished_upload(tmp_path):
    assert "config.json is missing" in reasons(tmp_path)
    assert "model.onnx is missing" in reasons(tmp_path)


def test_a_broken_onnx_file_and_a_broken_config_are_both_named(tmp_path):
    write(tmp_path, None, config(model_type="Image"))
    (tmp_path / "model.onnx").write_bytes(b"broken")
    found = inspect_package(tmp_path).reasons
    assert any(one.startswith("model.onnx does not load") for one in found)
    assert any("model_type" in one for one in found)


def test_external_data_must_be_there(tmp_path):
    write(tmp_path, "external_data/model", config())
    assert "model.onnx does not load" in reasons(tmp_path)
    (tmp_path / "model.onnx.data").write_bytes((EXPORTED / "external_data/model.onnx.data").read_bytes())
    assert reasons(tmp_path) == ""


@pytest.mark.parametrize(
    ("keys", "files"),
    [
        ({"onnx": {"labels": ["x", "y", "z"]}}, {}),
        ({}, {"labels_txt": "\ufeffx\r\ny\r\nz\r\n"}),
        ({}, {"labels_txt": "x\ny\nz"}),
        ({"id2label": {"0": "x", "1": "y", "2": "z"}}, {}),
        ({"onnx": {"id2label": ["x", "y", "z"]}}, {}),
        ({}, {"id2label_json": json.dumps({"2": "z", "1": "y", "0": "x"})}),
        ({}, {"preprocessor_config_json": json.dumps({"id2label": {"0": "x", "1": "y", "2": "z"}})}),
    ],
)
def test_labels(tmp_path, keys, files):
    content = config({"request": FILE_REQUEST}, model_algorithm="image_classification", **keys)
    found = inspect_package(write(tmp_path, "images_nchw", content, **files))
    assert (found.labels, found.reasons) == (("x", "y", "z"), ())


def test_labels_must_fit_the_class_output(tmp_path):
    content = config({"request": FILE_REQUEST}, model_algorithm="image_classification")
    assert "labels: there are 2" in reasons(write(tmp_path, "images_nchw", content, labels_txt="x\ny"))


def test_labels_of_other_models_need_not_be_classes(tmp_path):
    assert reasons(write(tmp_path, "logistic", config(), labels_txt="x\ny")) == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "properties", "items", "data", "a", "X", "url", "label"]), inner)
    ),
    max_leaves=10,
)
KINDS = ["string", "number", "integer", "boolean", "array", "object", "file"]
ODD = JSON | st.sampled_from([schema("a"), schema("a", "b", "c", "d"), *({"type": kind} for kind in KINDS)])
APIS = st.lists(
    ODD
    | st.dictionaries(
        st.sampled_from(["url", "request", "response", "onnx", "inputs", "outputs", "labels", "method"]),
        ODD | st.fixed_dictionaries({"Content-type": JSON, "data": ODD}),
    ),
    max_size=2,
)
ODD_ONNX = st.dictionaries(st.sampled_from(["model_file", "inputs", "outputs", "labels", "id2label"]), ODD)
ODD_CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "model_algorithm": ODD | st.just("image_classification"),
        "model_type": ODD | st.just("ONNX"),
        "apis": ODD | APIS,
        "onnx": ODD | ODD_ONNX,
        "metrics": ODD,
        "id2label": ODD,
        "entries": ODD,
        "api": ODD,
        "model_extra": ODD,
    },
)


@settings(max_examples=200, deadline=None)
@given(ODD_CONFIGS)
def test_no_config_is_more_than_abnormal(tmp_path_factory, content):
    folder = write(tmp_path_factory.mktemp("package"), "logistic", content)
    found = inspect_package(folder)
    assert all("\n" not in one for one in found.reasons)
    TypeAdapter(Inspection).dump_json(found, by_alias=True)
    if not found.reasons and found.config is not None and found.onnx is not None:
        for one in found.config.apis:
            bind(found.config, one, found.onnx, found.labels)


@pytest.mark.parametrize("content", ['{"a": "\\ud800"}', '{"a": 1e999}', '{"a":' * 300 + "1" + "}" * 300])
def test_odd_documents(tmp_path, content):
    assert "config.json" in reasons(write(tmp_path, "logistic", content))


def test_a_long_reason_is_cut(tmp_path):
    found = inspect_package(write(tmp_path, "logistic", config(model_type="x" * 10_000))).reasons
    assert [len(one) for one in found] == [500]


def test_a_very_deep_schema(tmp_path):
    deep = {"type": "number"}
    for _ in range(150):
        deep = {"type": "object", "properties": {"a": deep}}
    assert "levels" in reasons(write(tmp_path, "logistic", config(api(deep, deep))))
