"""Run config: the flat object, as Dagster checks it and as it comes back."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.execution.api import create_execution_plan

from batch_pipeline.definitions import defs
from batch_pipeline.errors import InvalidParameters
from batch_pipeline.orchestration.config import ParametersRefused, from_run_config, named_parameters, to_run_config
from batch_pipeline.parameters import parse_parameters
from batch_pipeline.settings import Settings

SETTINGS = Settings.from_environment({})
BASE = {"model": "iris:1", "input_path": "s3://bucket/in/", "output_path": "s3://bucket/out/"}
FULL = {
    **BASE,
    "name": "服务-1",
    "description": "花",
    "request_path": "/predict",
    "mapping": {"type": "object", "properties": {"a": {"type": "number", "index": 0}}},
    "node_spec": "auto-cpu",
    "node_count": 3,
    "environment": {"TOKEN": {"env": "SECRET"}, "LEVEL": "3"},
    "error_threshold": 0.25,
    "if_changed": "overwrite",
    "csv": {"header": True, "multiline": True, "missing": "nan"},
    "join_input": True,
}


def validated(config):
    job = defs.resolve_job_def("deploy_service")
    return dg.validate_run_config(job, {"ops": {"batch_service": {"config": config}}})


@pytest.mark.parametrize("config", [BASE, FULL], ids=["least", "most"])
def test_parameters_come_back_from_run_config_as_they_were(config):
    parameters = parse_parameters({"name": "服务-1", **config}, settings=SETTINGS)
    run_config = to_run_config(parameters.to_config())
    assert "name" not in run_config["ops"]["batch_service"]["config"]
    validated(run_config["ops"]["batch_service"]["config"])
    assert named_parameters(from_run_config(run_config), "服务-1", SETTINGS) == parameters


def test_a_reference_to_a_secret_is_not_replaced_by_it(monkeypatch):
    monkeypatch.setenv("SECRET", "swordfish")
    resolved = validated({**BASE, "environment": {"TOKEN": {"env": "SECRET"}}})
    assert "swordfish" not in str(resolved)


def test_a_broken_rule_refuses_the_launch_with_our_message():
    run_config = {"ops": {"batch_service": {"config": {**BASE, "node_count": 0, "description": "a=b"}}}}
    with pytest.raises(ParametersRefused) as refused:
        create_execution_plan(defs.resolve_job_def("deploy_service"), run_config)
    assert str(refused.value).startswith("description: must have none of")
    assert "node_count: must be" in str(refused.value)


def test_no_config_at_all_leaves_all_to_the_record_and_some_must_be_whole():
    job = defs.resolve_job_def("deploy_service")
    assert create_execution_plan(job, {})
    with pytest.raises(dg.DagsterInvalidConfigError, match="output_path"):
        validated({"model": "iris", "input_path": "s3://bucket/in/"})
    with pytest.raises(dg.DagsterInvalidConfigError, match="input_path"):
        validated({})


def test_an_unknown_key_is_named():
    with pytest.raises(dg.DagsterInvalidConfigError, match='"nodes"'):
        validated({**BASE, "nodes": 3})


def test_a_name_that_is_not_the_partition_is_refused():
    with pytest.raises(InvalidParameters, match="name: is 'other', but the partition is 'mine'"):
        named_parameters({**BASE, "name": "other"}, "mine", SETTINGS)
    assert named_parameters({**BASE, "name": "mine"}, "mine", SETTINGS).name == "mine"


def test_run_config_of_something_else_is_none_of_ours():
    assert from_run_config({}) is None
    assert from_run_config({"ops": {"other": {"config": {}}}}) is None
