"""The code location as Dagster loads it: assets, ops, what loading it costs."""

from __future__ import annotations

import json
import subprocess
import sys

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap

from batch_pipeline.definitions import build_definitions, defs
from batch_pipeline.node_specs import BUILT_IN, load_node_specs
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.factory import declare
from batch_pipeline.orchestration.graph import MODEL
from batch_pipeline.triggers.settings import (
    ManifestTrigger,
    ModelTrigger,
    NewFilesTrigger,
    NotificationTrigger,
    ScheduleTrigger,
)

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
        "batch_pipeline/model": [],
        "input_manifest": ["input_data"],
        "inference_results": ["batch_pipeline/model", "input_manifest"],
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


def test_the_checks_are_on_their_assets_and_only_the_count_of_inputs_blocks():
    graph = defs.resolve_asset_graph()
    found = {key.name: key.asset_key.to_user_string() for key in graph.asset_check_keys}
    assert found == {
        "valid": "batch_pipeline/model",
        "every_input_accounted_for": "output_manifest",
        "errors_within_threshold": "inference_results",
        "answers_match_schema": "inference_results",
        "predictions_stable": "inference_results",
        "no_empty_result": "inference_results",
    }
    blocking = {key.name for key in graph.asset_check_keys if graph.get_check_spec(key).blocking}
    assert blocking == {"every_input_accounted_for"}


def test_the_registry_is_in_the_catalog():
    repository = defs.get_repository_def()
    assert "validate_models" in repository.job_names
    assert [sensor.name for sensor in repository.sensor_defs] == ["model_versions"]
    model = defs.resolve_asset_graph().get(MODEL)
    assert (model.group_name, model.kinds, model.partitions_def.name) == ("batch_service", {"onnx"}, "model_version")


@pytest.fixture(scope="module")
def repository():
    """Our own services, and declared ones with every kind of trigger."""
    triggers = (
        ManifestTrigger("s3://bucket/in/"),
        NewFilesTrigger("s3://bucket/files/"),
        NotificationTrigger("https://sqs.us-east-1.amazonaws.com/123456789012/files"),
        ScheduleTrigger("0 3 * * *"),
        ModelTrigger(),
    )
    template = {"model": "iris", "input_path": "s3://bucket/{name}/", "output_path": "s3://bucket/out/{name}/"}
    ours = Declaration("reviews", template, triggers=triggers, owners=("team:ml",), tags={"domain": "flowers"})
    declared = declare(ours, load_node_specs(None), {})
    return dg.Definitions.merge(build_definitions(env={}), declared).get_repository_def()


@pytest.fixture(scope="module")
def snapshot(repository):
    """What the UI is told."""
    return RepositorySnap.from_def(repository)


def test_everything_is_described(snapshot):
    parts = {
        "asset": [(node.asset_key.to_user_string(), node.description) for node in snapshot.asset_nodes],
        "check": [(check.name, check.description) for check in snapshot.asset_check_nodes],
        "sensor": [(sensor.name, sensor.description) for sensor in snapshot.sensors],
        "schedule": [(schedule.name, schedule.description) for schedule in snapshot.schedules],
        "resource": [(one.name, one.resource_snapshot.description) for one in snapshot.resources],
        # Dagster's own implicit job has a name that begins with `__`.
        "job": [(data.job.name, data.job.description) for data in snapshot.job_datas if data.name[0] != "_"],
    }
    jobs = [data.job.node_defs_snapshot for data in snapshot.job_datas]
    ops = [op for nodes in jobs for op in nodes.op_def_snaps]
    parts["graph"] = [(graph.name, graph.description) for nodes in jobs for graph in nodes.graph_def_snaps]
    parts["op"] = [(op.name, op.description) for op in ops]
    parts["input"] = [(f"{op.name}.{one.name}", one.description) for op in ops for one in op.input_def_snaps]
    undescribed = {f"{kind} {name}" for kind, found in parts.items() for name, text in found if not text}
    assert undescribed == set()
    assert all(parts.values())


def test_every_output_is_described():
    """Dagster keeps them out of the snapshots of jobs of assets."""
    job = defs.resolve_job_def("deploy_service")
    outputs = [(node.name, output) for node in job.all_node_defs for output in node.output_defs]
    assert {f"{node}.{output.name}" for node, output in outputs if not output.description} == set()


def test_every_asset_has_a_group_kinds_and_tags_and_what_is_declared_has_its_owners(snapshot):
    for node in snapshot.asset_nodes:
        assert node.group_name != "default"
        assert any(tag.startswith("dagster/kind/") for tag in node.tags)
    declared = [node for node in snapshot.asset_nodes if "reviews" in node.asset_key.path]
    assert len(declared) == 4
    for node in declared:
        assert list(node.owners) == ["team:ml"]
        assert node.tags["domain"] == "flowers"
        assert node.tags["batch_pipeline/declaration"] == "reviews"


def test_jobs_sensors_schedules_and_ops_have_tags_and_what_is_declared_has_its_owners(repository):
    jobs = [job for job in repository.get_all_jobs() if job.name[0] != "_"]
    triggers = [*repository.sensor_defs, *repository.schedule_defs]
    ops = {op.name: op for job in jobs for op in job.all_node_defs}
    assert {f"{type(one).__name__} {one.name}" for one in (*jobs, *triggers, *ops.values()) if not one.tags} == set()
    assert {op.name for op in ops.values() if not isinstance(op, dg.GraphDefinition) and not _kinds(op)} == set()
    declared = [one for one in (*jobs, *triggers) if "reviews" in one.name]
    assert len(declared) == 6
    for one in declared:
        assert list(one.owners) == ["team:ml"]
        assert "reviews" in one.tags.values()
    assert {one.tags["trigger"] for one in triggers} >= {"manifests", "new_files", "notifications", "schedule", "model"}


def test_what_is_said_of_a_declaration_is_not_said_of_its_runs(repository):
    job = repository.get_job("deploy_reviews")
    assert job.tags["domain"] == "flowers"
    assert job.run_tags == {"batch_pipeline/declaration": "reviews", "dagster/retry_strategy": "ALL_STEPS"}
    assert "batch_pipeline/declaration" not in repository.get_job("deploy_service").run_tags


def test_loading_the_definitions_imports_nothing_heavy():
    code = f"import sys, batch_pipeline.definitions; print([name for name in {HEAVY} if name in sys.modules])"
    assert in_a_process(code).strip() == "[]"


def test_what_is_preloaded_works_in_forked_processes():
    assert in_a_process(FORKS).split() == ["0"] * 8


FORKS = """
import os
import batch_pipeline.orchestration.preload

def work():
    import io, numpy, polars
    frame = polars.DataFrame({"key": [number % 7 for number in range(20_000)], "value": range(20_000)})
    sums = frame.lazy().group_by("key").agg(polars.col("value").sum())
    assert sums.collect()["value"].sum() == sums.collect(engine="streaming")["value"].sum() == sum(range(20_000))
    file = io.BytesIO()
    frame.write_parquet(file)
    file.seek(0)
    assert polars.read_parquet(file).equals(frame)
    return numpy.ones((300, 300)) @ numpy.ones((300, 300))

for _ in range(8):
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    print(os.waitpid(child, 0)[1])
"""


def _handle(name: str) -> dg.NodeHandle:
    from dagster._core.definitions.dependency import NodeHandle

    return NodeHandle(name, NodeHandle("batch_service", None))


def _kinds(op: dg.OpDefinition) -> list[str]:
    return [tag for tag in op.tags if tag.startswith("dagster/kind/")]
