"""A declared service: its own assets, job and partitions, its template, and the same list of services."""

from __future__ import annotations

import os

import dagster as dg
import pytest

from batch_pipeline.definitions import build_definitions
from batch_pipeline.node_specs import load_node_specs
from batch_pipeline.orchestration import services
from batch_pipeline.orchestration.config import to_run_config
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.factory import declare


@pytest.fixture
def template(place):
    return {
        "model": "iris",
        "input_path": f"file://{place.root}/in/",
        "output_path": f"file://{place.root}/out/{{name}}/",
        "csv": {"missing": "nan"},
    }


def definitions(declaration: Declaration) -> dg.Definitions:
    return dg.Definitions.merge(build_definitions(), declare(declaration, load_node_specs(None), os.environ))


def test_a_partition_runs_with_the_template(instance, place, template):
    ours = Declaration("reviews", template, key_prefix=("shop",), owners=("team:ml",), group="shop")
    job = definitions(ours).resolve_job_def("deploy_reviews")
    instance.add_dynamic_partitions("reviews", ["monday"])
    assert job.execute_in_process(instance=instance, partition_key="monday").success
    assert (place.root / "out/monday/infer-result-0.manifest").exists()
    shown = services.show_service(instance, "reviews/monday")
    assert (shown.state, shown.model, shown.parameters["csv"]["missing"]) == ("finished", "iris", "nan")
    assert services.show_service(instance, "monday").name == "reviews/monday"
    key = dg.AssetKey(["shop", "reviews", "output_manifest"])
    event = instance.get_latest_materialization_event(key)
    assert event.asset_materialization.partition == "monday"


def test_a_run_without_config_runs_with_the_template(instance, place, template):
    """As where assets are materialized by hand or by an automation condition."""
    ours = Declaration("reviews", {**template, "node_count": 2})
    assets = definitions(ours).resolve_job_def("__ASSET_JOB")
    keys = [ours.key(asset) for asset in ("input_manifest", "inference_results", "output_manifest")]
    instance.add_dynamic_partitions("reviews", ["monday"])
    result = assets.get_subset(asset_selection=set(keys)).execute_in_process(
        instance=instance, partition_key="monday", run_config={}
    )
    assert result.success
    assert len(list((place.root / "out/monday").glob("infer-result-*.manifest"))) == 2
    assert services.show_service(instance, "reviews/monday").nodes == 2


def test_a_template_without_placeholders_is_one_service(instance, place, template):
    ours = Declaration("reviews", {**template, "output_path": f"file://{place.root}/out/"})
    assert ours.is_fixed
    job = definitions(ours).resolve_job_def("deploy_reviews")
    assert job.execute_in_process(instance=instance, partition_key="reviews").success
    assert [service.name for service in services.list_services(instance)] == ["reviews/reviews"]
    assert services.delete_service(instance, "reviews", results=True) > 0
    assert services.list_services(instance) == []


def test_the_config_of_a_run_goes_before_the_template(instance, place, template):
    ours = Declaration("reviews", template)
    job = definitions(ours).resolve_job_def("deploy_reviews")
    instance.add_dynamic_partitions("reviews", ["monday"])
    config = to_run_config({"node_count": 3}, "reviews")
    assert job.execute_in_process(instance=instance, partition_key="monday", run_config=config).success
    assert len(list((place.root / "out/monday").glob("infer-result-*.manifest"))) == 3


def test_two_declarations_may_have_partitions_of_one_name(instance, place, template):
    other = {**template, "output_path": f"file://{place.root}/other/{{name}}/"}
    for name, each in (("reviews", template), ("ratings", other)):
        job = definitions(Declaration(name, each)).resolve_job_def(f"deploy_{name}")
        instance.add_dynamic_partitions(name, ["monday"])
        assert job.execute_in_process(instance=instance, partition_key="monday").success
    assert {service.name for service in services.list_services(instance)} == {"reviews/monday", "ratings/monday"}
    with pytest.raises(services.ServiceNotFound, match="ratings/monday or reviews/monday"):
        services.show_service(instance, "monday")
    services.delete_service(instance, "reviews/monday")
    assert services.show_service(instance, "monday").name == "ratings/monday"
