"""The code location as Dagster loads it: assets, ops, what loading it costs."""

from __future__ import annotations

import json
import subprocess
import sys

import dagster as dg
import pytest

from batch_pipeline.definitions import build_definitions, defs
from batch_pipeline.node_specs import BUILT_IN

HEAVY = ("polars", "pandas", "numpy", "onnxruntime", "obstore", "boto3", "PIL", "pyarrow")


def in_a_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_everything_loads_as_a_code_server_loads_it():
    repository = defs.get_repository_def()
    repository.load_all_definitions()
    assert "deploy_service" in repository.job_names


def test_the_lineage_is_visible():
    graph = defs.resolve_asset_graph()
    parents = {
        key.to_user_string(): sorted(parent.to_user_string() for parent in graph.get(key).parent_keys)
        for key in graph.get_all_asset_keys()
    }
    assert parents == {
        "input_data": [],
        "model": [],
        "input_manifest": ["input_data"],
        "inference_results": ["input_manifest", "model"],
        "output_manifest": ["inference_results"],
    }


@pytest.mark.parametrize("spec", BUILT_IN, ids=lambda spec: spec.id)
def test_each_node_spec_has_its_own_op_pool_and_resources(spec):
    op = defs.resolve_job_def("deploy_service").get_op(_handle(f"infer_on_{spec.identifier}")).definition
    assert op.pool == f"node_{spec.identifier}"
    limits = json.loads(op.tags["dagster-k8s/config"])["container_config"]["resources"]["limits"]
    assert limits == {"cpu": "2", "memory": "8Gi", **({"nvidia.com/gpu": "1"} if spec.gpu else {})}
    ray = json.loads(op.tags["dagster-ray/config"])
    assert ray == {"num_cpus": 2, "num_gpus": spec.gpu, "memory": 8 * 2**30}


def test_the_operators_own_node_spec_gets_an_op(tmp_path):
    table = tmp_path / "specs.yaml"
    table.write_text("node_specs: [{id: big, cpu: 16, memory_gib: 64, tags: {team: research}}]")
    built = build_definitions(env={"BATCH_PIPELINE_NODE_SPECS": str(table)})
    op = built.resolve_job_def("deploy_service").get_op(_handle("infer_on_big")).definition
    assert op.tags["team"] == "research"


def test_the_check_on_the_output_manifest_blocks():
    (check,) = _checks()
    assert check.name == "every_input_accounted_for"
    assert check.blocking


def test_loading_the_definitions_imports_nothing_heavy():
    code = f"import sys, batch_pipeline.definitions; print([name for name in {HEAVY} if name in sys.modules])"
    assert in_a_process(code).strip() == "[]"


def test_preloading_starts_no_thread():
    code = "import os, batch_pipeline.orchestration.preload; print(len(os.listdir('/proc/self/task')))"
    assert in_a_process(code).strip() == "1"


def _handle(name: str) -> dg.NodeHandle:
    from dagster._core.definitions.dependency import NodeHandle

    return NodeHandle(name, NodeHandle("batch_service", None))


def _checks() -> list[dg.AssetCheckSpec]:
    return [
        spec for assets in defs.assets or [] if isinstance(assets, dg.AssetsDefinition) for spec in assets.check_specs
    ]
