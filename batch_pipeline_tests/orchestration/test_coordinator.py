"""Our run queue: what it says of a run that was launched otherwise than by us."""

from __future__ import annotations

import dagster as dg
import pytest

from batch_pipeline.orchestration import services
from batch_pipeline.orchestration.code_location import JobOrigin
from batch_pipeline.orchestration.coordinator import ServiceRunCoordinator
from batch_pipeline.orchestration.declaration import AD_HOC, Declaration
from batch_pipeline.orchestration.names import ASSETS, SERVICE, TAG_DECLARATION, TAG_SERVICE
from batch_pipeline_tests.orchestration.test_declared import definitions

REVIEWS = Declaration("reviews", {"model": "iris", "output_path": "s3://bucket/{name}/"}, key_prefix=("shop",))


def queued(instance, job, **changes):
    tags = {"dagster/partition": "monday"}
    origin = JobOrigin.own()
    run = instance.create_run_for_job(
        job,
        tags=tags,
        remote_job_origin=origin.remote,
        job_code_origin=origin.job.get_python_origin(),
        **changes,
    )
    return instance.submit_run(run.run_id, None).tags


@pytest.mark.parametrize(("ours", "name"), [(REVIEWS, "reviews/monday"), (AD_HOC, "monday")])
def test_a_run_of_the_page_of_an_asset_is_tagged_with_its_service(instance, place, ours, name):
    keys = {ours.key(asset) for asset in ASSETS}
    job = definitions(REVIEWS).resolve_job_def("__ASSET_JOB").get_subset(asset_selection=keys)
    tags = queued(instance, job, asset_selection=frozenset(keys))
    assert isinstance(instance.run_coordinator, ServiceRunCoordinator)
    assert (tags[TAG_SERVICE], tags.get(TAG_DECLARATION, SERVICE)) == (name, ours.name)


def test_a_run_of_another_projects_job_is_tagged_too(instance, place):
    nightly = dg.define_asset_job("nightly", dg.AssetSelection.assets(*map(REVIEWS.key, ASSETS)))
    job = dg.Definitions.merge(definitions(REVIEWS), dg.Definitions(jobs=[nightly])).resolve_job_def("nightly")
    tags = queued(instance, job)
    assert (tags[TAG_SERVICE], tags[TAG_DECLARATION]) == ("reviews/monday", "reviews")


def test_a_run_of_something_else_is_left_as_it_is(instance, place):
    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["monday"]))
    def output_manifest() -> None: ...

    job = dg.Definitions(assets=[output_manifest]).resolve_implicit_global_asset_job_def()
    assert TAG_SERVICE not in queued(instance, job, asset_selection=frozenset({output_manifest.key}))


@pytest.mark.parametrize("name", ["deploy_service", "deploy_reviews"])
def test_a_job_of_another_project_with_a_name_like_ours_has_no_services(instance, place, name):
    @dg.op
    def ship() -> None: ...

    @dg.job(name=name, partitions_def=dg.StaticPartitionsDefinition(["monday"]))
    def deploy() -> None:
        ship()

    tags = queued(instance, dg.Definitions(jobs=[deploy]).resolve_job_def(name))
    assert (TAG_SERVICE in tags, TAG_DECLARATION in tags) == (False, False)
    assert services.list_services(instance) == []
