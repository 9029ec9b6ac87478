"""Declared services beside the assets of a project that has names like ours: both load, and both work."""

from __future__ import annotations

import os

import dagster as dg
import pytest

from batch_pipeline.node_specs import load_node_specs
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.factory import declare
from batch_pipeline.orchestration.graph import MODEL
from batch_pipeline.orchestration.model_assets import model_registry_definitions
from batch_pipeline.orchestration.resources import resources_of


class Shelf(dg.InMemoryIOManager):
    """The project's own: it wants to see nothing of ours."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        assert context.asset_key.path[0] in ("model", "prices"), context.asset_key
        super().handle_output(context, obj)


class Deployment(dg.ConfigurableResource):
    stage: str


@dg.asset
def model(deployment: Deployment) -> str:
    return f"a model of {deployment.stage}"


@dg.asset
def prices(model: str) -> str:
    return f"prices by {model}"


@pytest.fixture
def project(place):
    template = {"model": "iris", "input_path": f"file://{place.root}/in/", "output_path": f"file://{place.root}/out/"}
    ours = Declaration("reviews", template, deps=(prices.key,))
    own = dg.Definitions(
        assets=[model, prices], resources={"deployment": Deployment(stage="test"), "io_manager": Shelf()}
    )
    return dg.Definitions.merge(
        own,
        declare(ours, load_node_specs(None), os.environ),
        model_registry_definitions(os.environ),
        dg.Definitions(resources=resources_of(None)),
    )


def test_they_keep_out_of_each_others_way(instance, place, project):
    dg.Definitions.validate_loadable(project)
    assets = project.resolve_implicit_global_asset_job_def()
    host = assets.get_subset(asset_selection={model.key, prices.key}).execute_in_process(instance=instance)
    assert host.output_for_node("prices") == "prices by a model of test"
    job = project.resolve_job_def("deploy_reviews")
    assert job.execute_in_process(instance=instance, partition_key="reviews").success
    instance.add_dynamic_partitions("model_version", ["iris:1.0.0"])
    job = project.resolve_job_def("validate_models")
    assert job.execute_in_process(instance=instance, partition_key="iris:1.0.0").success
    assert instance.get_latest_materialization_event(MODEL).asset_materialization.partition == "iris:1.0.0"
    assert instance.get_latest_materialization_event(model.key).asset_materialization.partition is None
