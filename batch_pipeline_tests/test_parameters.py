from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipeline.errors import InvalidParameters, LimitReached
from batch_pipeline.parameters import MASK, EnvReference, ServiceParameters, generate_name, parse_parameters
from batch_pipeline.settings import Settings

MINIMAL = {"model": "iris:1.0", "input_path": "s3://data/in/", "output_path": "s3://data/out/"}
SETTINGS = Settings()


def parse(settings: Settings = SETTINGS, **changes: Any) -> ServiceParameters:
    return parse_parameters({**MINIMAL, **changes}, settings=settings)


def problems(settings: Settings = SETTINGS, **changes: Any) -> list[str]:
    with pytest.raises(InvalidParameters) as caught:
        parse(settings, **changes)
    return [str(problem) for problem in caught.value.problems]


def problem(**changes: Any) -> str:
    (only,) = problems(**changes)
    return only


def test_defaults_are_those_of_the_table() -> None:
    assert parse().to_config() == {
        "description": "",
        "model": "iris:1.0",
        "input_path": "s3://data/in/",
        "request_path": "/",
        "output_path": "s3://data/out/",
        "node_spec": "cpu-2u8g",
        "node_count": 1,
        "environment": {},
        "error_threshold": 0.0,
        "if_changed": "refuse",
        "csv": {"header": False, "multiline": False, "missing": "error"},
        "join_input": False,
    }


def test_config_is_json_and_reads_back() -> None:
    parameters = parse(
        name="服务-1",
        mapping={"type": "object", "properties": {"a": {"type": "number", "index": 0}, "b": None}},
        environment={"A": "1", "B": {"env": "SECRET"}},
        error_threshold=1,
        csv={"header": True},
    )
    config = json.loads(json.dumps(parameters.to_config()))
    assert parse_parameters(config, settings=SETTINGS) == parameters
    assert config["mapping"]["properties"]["b"] is None


def test_environment_values_are_masked_for_display() -> None:
    parameters = parse(environment={"A": "secret", "B": {"env": "SECRET"}})
    assert parameters.environment["B"] == EnvReference(env="SECRET")
    assert parameters.to_display()["environment"] == {"A": MASK, "B": {"env": "SECRET"}}


@pytest.mark.parametrize("name", ["service-bc0d", "服务_1", "a" * 64, "-", None])
def test_good_names(name: str | None) -> None:
    assert parse(name=name).name == name


@pytest.mark.parametrize("name", ["", "a" * 65, "a b", "a\n", "a/b", "é", 7, True, "鿿㐀"])
def test_bad_names_are_told_the_rule(name: object) -> None:
    assert problem(name=name).startswith("name: must be 1 to 64 letters, digits, _, - or Chinese characters, not ")


def test_description_counts_characters() -> None:
    assert parse(description="𠮷" * 100).description == "𠮷" * 100
    assert problem(description="字" * 101) == "description: must have at most 100 characters, and has 101"


@pytest.mark.parametrize("character", "!<>=&\"'")
def test_description_has_none_of_the_refused_characters(character: str) -> None:
    assert problem(description=f"a{character}b") == f"description: must have none of !<>=&\"', and has {character}"


@pytest.mark.parametrize("model", ["", ":1", "iris:", "a:b:c", "a b", "iris:1\n", "a/b:1", 1, None])
def test_bad_models(model: object) -> None:
    assert problem(model=model).startswith("model: must be name:version")


def test_what_is_missing_is_said_all_at_once() -> None:
    with pytest.raises(InvalidParameters) as caught:
        parse_parameters({}, settings=SETTINGS)
    assert [p.where for p in caught.value.problems] == ["model", "input_path", "output_path"]
    assert all(p.what.startswith("is missing: ") for p in caught.value.problems)


def test_all_problems_at_once_in_the_order_of_the_table() -> None:
    found = problems(nodecount=3, join_input="yes", csv={"missing": "x", "heeder": True}, node_count=0, name="a b")
    assert [text.partition(":")[0] for text in found] == [
        "name",
        "node_count",
        "csv.heeder",
        "csv.missing",
        "join_input",
        "nodecount",
    ]


def test_unknown_keys_get_a_hint() -> None:
    assert problem(nodecount=3) == "nodecount: is not a parameter; did you mean node_count?"
    assert problem(csv={"heeder": True}) == "csv.heeder: is not a parameter; did you mean csv.header?"
    assert problem(zzz=3).startswith("zzz: is not a parameter; the keys are name, description, model")


@pytest.mark.parametrize("count", [0, -1, 1.5, 2.0, "2", True, None, [1], float("nan")])
def test_bad_node_counts(count: object) -> None:
    assert problem(node_count=count).startswith("node_count: must be an integer of 1 or more, not ")


def test_node_count_has_the_deployments_limit() -> None:
    assert parse(node_count=256).node_count == 256
    assert problem(node_count=257) == "node_count: must be at most 256, the limit of this deployment, not 257"
    assert problems(Settings(max_nodes=2), node_count=3)


def test_node_spec_must_be_in_the_table(tmp_path: Path) -> None:
    assert problem(node_spec="cpu-1").startswith("node_spec: 'cpu-1' does not exist; node specs: cpu-2u8g, gpu-2u8g-p4")
    table = tmp_path / "specs.yaml"
    table.write_text("node_specs: [{id: cpu-1, cpu: 1, memory_gib: 1}]")
    assert parse(Settings(node_specs=table), node_spec="cpu-1").node_spec == "cpu-1"


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "Path", "LD_PRELOAD", "PYTHONPATH", "DAGSTER_HOME", "aws_secret_access_key", "BATCH_PIPELINE_MODELS"),
        *("https_proxy", "SSL_CERT_FILE", "SSLKEYLOGFILE", "OPENSSL_CONF", "HOME", "TMPDIR", "GCONV_PATH", "ORT_X"),
    ],
)
def test_variables_of_the_process_itself_are_refused(name: str) -> None:
    assert problem(environment={name: "x"}) == (
        f"environment.{name}: would change how the process itself runs, and is refused; choose another name"
    )


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "A\n", "Ä"])
def test_bad_variable_names(name: str) -> None:
    assert "is no name for an environment variable" in problem(environment={name: "x"})


@pytest.mark.parametrize(
    "value", [1, True, None, ["a"], {"env": "A", "x": 1}, {}, {"env": 1}, {"env": "A\n"}, "a\0b", "\ud800"]
)
def test_bad_variable_values(value: object) -> None:
    assert problem(environment={"A": value}).startswith("environment.A: ")


def test_no_message_repeats_the_value_of_a_variable() -> None:
    assert "hunter2" not in " ".join(
        problems(environment={"A": "hunter2\0", "B": {"env": "hunter2!"}, "C": ["hunter2"]})
    )
    assert "hunter2" not in " ".join(problems(environment="hunter2"))


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), True, "0.5", None])
def test_bad_error_thresholds(value: object) -> None:
    assert problem(error_threshold=value).startswith("error_threshold: must be a number from 0 to 1, not ")


@pytest.mark.parametrize("key", ["join_input", "csv"])
@pytest.mark.parametrize("value", ["true", 1, None, []])
def test_bad_booleans_and_objects(key: str, value: object) -> None:
    assert problem(**{key: value}).startswith(f"{key}: must be ")


def test_if_changed_is_one_of_two() -> None:
    assert problem(if_changed="force") == "if_changed: must be refuse or overwrite, not 'force'"


@pytest.mark.parametrize("mapping", ["{}", [], 1, {1: {}}, {"a": {1, 2}}])
def test_mapping_must_be_an_object_of_json(mapping: object) -> None:
    assert problems(mapping=mapping)[0].startswith("mapping")


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("s3://bbb/in/", "s3://bbb/in/"),
        ("obs://bbb/in/", "s3://bbb/in/"),
        ("/bbb/in/", "s3://bbb/in/"),
        ("//bbb/x.manifest", "s3://bbb/x.manifest"),
        ("https://bbb.obs.cn-north-1.myhuaweicloud.com/in/", "s3://bbb/in/"),
    ],
)
def test_input_is_a_folder_or_a_manifest_in_its_one_form(text: str, uri: str) -> None:
    parameters = parse(input_path=text)
    assert parameters.input_path == uri == parameters.input.uri
    assert parameters.reads_manifest == uri.endswith(".manifest")


def test_input_is_nothing_else() -> None:
    assert problem(input_path="s3://bbb/in") == (
        "input_path: must be a folder (s3://bucket/prefix/) or one file ending .manifest; did you mean s3://bbb/in/ ?"
    )
    assert problem(input_path="data/in/").startswith("input_path: ")
    assert problem(input_path="file:///data/in/").startswith("input_path: ")


def test_output_gets_its_slash() -> None:
    assert parse(output_path="s3://data/out").output_path == "s3://data/out/"


@pytest.mark.parametrize(
    ("source", "output", "what"),
    [
        ("s3://bbb/a/", "obs://bbb/a", "must not be the input folder"),
        ("s3://bbb/a/", "s3://bbb/a/out/", "must not lie inside the input folder"),
        ("s3://bbb/a/in/", "s3://bbb/a/", "must not hold the input folder"),
        ("s3://bbb/", "s3://bbb/out/", "must not lie inside the input folder"),
        ("s3://bbb/a/x.manifest", "s3://bbb/a/", "must not hold the input manifest"),
    ],
)
def test_output_and_input_stay_apart(source: str, output: str, what: str) -> None:
    assert problem(input_path=source, output_path=output).startswith(f"output_path: {what}")


@pytest.mark.parametrize(
    ("source", "output"),
    [("s3://bbb/a/", "s3://bbb/ab/"), ("s3://bbb/a/", "s3://ccc/a/x/"), ("s3://bbb/x.manifest", "s3://bbb/x/")],
)
def test_neighbours_are_apart(source: str, output: str) -> None:
    parse(input_path=source, output_path=output)


def test_local_files_only_where_allowed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    local = Settings(allow_local_files=True)
    source = f"file://{tmp_path}/in/"
    assert parse(local, input_path=source, output_path=f"file://{tmp_path}/out/").input.scheme == "file"
    assert problems(local, input_path=source, output_path=f"file://{tmp_path}/link/x/")


def test_generated_names_never_repeat() -> None:
    taken = {f"service-{number:04x}" for number in range(0x10000)} - {"service-bc0d"}
    assert generate_name(taken) == "service-bc0d"
    assert parse(name=generate_name(())).name
    with pytest.raises(LimitReached):
        generate_name(taken | {"service-bc0d"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*ServiceParameters.model_fields, "x"]) | st.text(), JSON, max_size=8))
def test_whatever_is_given_is_parsed_or_refused(changes: dict[str, Any]) -> None:
    try:
        parameters = parse_parameters({**MINIMAL, **changes}, settings=SETTINGS)
    except InvalidParameters as refused:
        lines = [str(problem) for problem in refused.problems]
        assert lines and not any("\n" in line for line in lines)  # noqa: PT018
    else:
        assert parse_parameters(parameters.to_config(), settings=SETTINGS) == parameters


def test_parameters_that_a_run_of_an_older_version_handed_on_say_nothing_of_its_folder() -> None:
    state = parse().of("a fingerprint").__getstate__()
    older = ServiceParameters.__new__(ServiceParameters)
    older.__setstate__({**state, "__pydantic_private__": {"_full_name": "reviews/monday"}})
    assert (older.made_from, older.full_name) == (None, "reviews/monday")
