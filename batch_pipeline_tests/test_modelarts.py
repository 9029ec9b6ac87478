from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipeline.errors import InvalidParameters
from batch_pipeline.modelarts import is_modelarts, read_body
from batch_pipeline.settings import Settings

RULE = {"type": "object", "properties": {"a": {"type": "number", "index": 0}}}


def body(*, top: dict[str, Any] | None = None, **entry: Any) -> dict[str, Any]:
    """The original's own sample, with changes."""
    config = {
        "specification": "modelarts.vm.cpu.2u",
        "weight": 100,
        "model_id": "iris:1.0",
        "instance_count": 1,
        "src_path": "https://infers-data.obs.cn-north-1.myhuaweicloud.com/xgboosterdata/",
        "dest_path": "https://infers-data.obs.cn-north-1.myhuaweicloud.com/output/",
        "req_uri": "/",
        "mapping_type": "csv",
        "mapping_rule": RULE,
        **entry,
    }
    return {
        "service_name": "batchservicetest",
        "description": "",
        "infer_type": "batch",
        "cluster_id": "8abf68a969c3cb3a0169c4acb24b0000",
        "config": [config],
        **(top or {}),
    }


def problems(data: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidParameters) as caught:
        read_body(data).parse(Settings())
    return [str(problem) for problem in caught.value.problems]


def test_the_original_sample() -> None:
    read = read_body(body(envs={"A": "1"}))
    parameters = read.parse(Settings())
    assert parameters.name == "batchservicetest"
    assert parameters.model == "iris:1.0"
    assert parameters.input_path == "s3://infers-data/xgboosterdata/"
    assert parameters.output_path == "s3://infers-data/output/"
    assert parameters.node_spec == "cpu-2u8g"
    assert parameters.mapping == RULE
    assert parameters.environment == {"A": "1"}
    assert read.warnings == (
        "cluster_id means nothing here; ignored",
        "config.0.weight means nothing here; ignored",
    )


def test_a_manifest_of_files_on_a_gpu() -> None:
    read = read_body(
        body(
            src_type="ManifestFile",
            src_path="https://bbb.obs.cn-north-1.myhuaweicloud.com/in/x.manifest",
            mapping_type="file",
            specification="modelarts.vm.gpu.p4",
        )
    )
    parameters = read.parse(Settings())
    assert parameters.reads_manifest
    assert parameters.mapping is None
    assert parameters.node_spec == "gpu-2u8g-p4"
    assert "config.0.mapping_rule means nothing with mapping_type file; ignored" in read.warnings


def test_a_rule_in_text_and_nulls() -> None:
    parameters = read_body(body(mapping_rule=json.dumps(RULE), envs=None, top={"vpc_id": None})).parse(Settings())
    assert parameters.mapping == RULE
    assert parameters.environment == {}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (body(top={"infer_type": "real-time"}), "infer_type: must be batch, not 'real-time'"),
        (body(top={"infer_type": None}), "infer_type: must be batch, not nothing"),
        (body(top={"config": []}), "config: must be a list of exactly one object"),
        (body(top={"config": [{}, {}]}), "config: must be a list of exactly one object"),
        (body(top={"config": {}}), "config: must be a list of exactly one object"),
        (body(top={"service_nam": 1}), "service_nam: is not a key of the original API; did you mean service_name?"),
        (body(instance_cnt=1), "config.0.instance_cnt: is not a key of the original API; did you mean instance_count?"),
        (body(mapping_type="xml"), "config.0.mapping_type: must be csv or file, not 'xml'"),
        (body(src_type="Folder"), "config.0.src_type: must be ManifestFile or not be there, not 'Folder'"),
        (body(src_type="ManifestFile"), "config.0.src_path: must end in .manifest, as src_type ManifestFile says"),
        (body(instance_count=0), "config.0.instance_count: must be an integer of 1 or more, not 0"),
        (body(envs={"PATH": "x"}), "config.0.envs.PATH: would change how the process itself runs"),
        (body(mapping_rule="{"), "config.0.mapping_rule: is text that is not JSON"),
        (
            body(specification="modelarts.vm.cpu.8u"),
            "config.0.specification: 'modelarts.vm.cpu.8u' is not one of modelarts.vm.cpu.2u, modelarts.vm.gpu.p4",
        ),
    ],
)
def test_problems_are_told_by_the_originals_keys(data: dict[str, Any], expected: str) -> None:
    (only,) = problems(data)
    assert only.startswith(expected)


def test_all_problems_at_once() -> None:
    found = problems({"service_name": "a b", "infer_type": "edge", "config": [{"instance_count": True}]})
    assert [text.partition(": ")[0] for text in found] == [
        "infer_type",
        "service_name",
        "config.0.model_id",
        "config.0.src_path",
        "config.0.dest_path",
        "config.0.instance_count",
    ]


def test_our_own_object_is_left_as_it_is() -> None:
    ours = {"model": "iris", "input_path": "s3://b/in/", "output_path": "s3://b/out/"}
    assert not is_modelarts(ours)
    read = read_body(ours)
    assert read.parameters == ours
    assert read.warnings == ()


KEYS = st.sampled_from(["infer_type", "service_name", "config", "model_id", "mapping_type", "mapping_rule", "src_type"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["batch", "csv", "file", "ManifestFile", "{", "a\nb"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS | st.text(), inner, max_size=5),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, JSON, max_size=7))
def test_whatever_the_body_is_it_is_refused_in_lines(data: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameters) as caught:
        read_body(data).parse(Settings())
    assert not any("\n" in str(problem) for problem in caught.value.problems)


@pytest.mark.parametrize("rule", ["[" * 300 + "]" * 300, "[" * 100_000, "1" * 5000, '{"a": 1, "a": 2}'])
def test_a_rule_in_a_text_that_cannot_be_read(rule: str) -> None:
    assert any(
        problem.startswith("config.0.mapping_rule: is text that is no") for problem in problems(body(mapping_rule=rule))
    )
