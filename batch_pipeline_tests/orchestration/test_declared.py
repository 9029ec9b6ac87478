"""A declared service: its own assets, job and partitions, its template, and the same list of services."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository

import batch_pipeline
from batch_pipeline.cli import run
from batch_pipeline.definitions import build_definitions
from batch_pipeline.errors import LimitReached, Refused
from batch_pipeline.node_specs import load_node_specs
from batch_pipeline.orchestration import services
from batch_pipeline.orchestration.admission import existing_services
from batch_pipeline.orchestration.config import to_run_config
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.factory import declare
from batch_pipeline.orchestration.identity import find_service
from batch_pipeline.orchestration.job import run_config_of_service
from batch_pipeline.orchestration.launching import launch, recorded_run_config, relaunch
from batch_pipeline.orchestration.names import ASSETS


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


def test_what_is_edited_in_the_template_of_a_fixed_service_counts_from_its_next_run_on(instance, place, template):
    """However it is launched: with the config that the Launchpad opens with, or with none."""
    fixed = {**template, "output_path": f"file://{place.root}/out/", "if_changed": "overwrite"}
    for number, config in ((1, None), (2, None), (3, {})):
        job = definitions(Declaration("reviews", {**fixed, "node_count": number})).resolve_job_def("deploy_reviews")
        assert job.execute_in_process(instance=instance, partition_key="reviews", run_config=config).success
        assert services.show_service(instance, "reviews/reviews").nodes == number


@pytest.mark.parametrize("filled", [False, True])
def test_what_only_a_trigger_knows_is_for_a_person_to_give(instance, place, template, filled):
    """The Launchpad opens with the template as it is written, and launching that makes no folder of such a name."""
    ours = Declaration("reviews", {**template, "output_path": f"file://{place.root}/out/{{stem}}-{{etag8}}/"})
    job = definitions(ours).resolve_job_def("deploy_reviews")
    instance.add_dynamic_partitions("reviews", ["monday"])
    config = run_config_of_service("monday", ours)
    if filled:
        config["ops"]["reviews"]["config"]["output_path"] = f"file://{place.root}/out/by-hand/"
    result = job.execute_in_process(instance=instance, partition_key="monday", run_config=config, raise_on_error=False)
    assert result.success == filled
    error = services.show_service(instance, "reviews/monday").error
    assert filled or "output_path: holds {stem}, which what fired does not know" in error.message
    assert [path.name for path in (place.root / "out").glob("*")] == ["by-hand"] * filled


@pytest.mark.parametrize("slip", [{"node_count": 0}, {"node_count": 4}, {"input_path": "file:///no/such/folder/"}])
def test_what_was_refused_is_not_what_the_service_runs_with_later(instance, place, template, slip):
    """As by an automation condition, after somebody's slip in the Launchpad: no parameters, changed ones, no inputs."""
    job = definitions(Declaration("reviews", template)).resolve_job_def("deploy_reviews")
    instance.add_dynamic_partitions("reviews", ["monday"])
    configs = [{"node_count": 2}, slip, {}]
    results = [
        job.execute_in_process(
            instance=instance,
            partition_key="monday",
            run_config=to_run_config(config, "reviews") if config else {},
            raise_on_error=False,
        )
        for config in configs
    ]
    assert [result.success for result in results] == [True, False, True]
    assert services.show_service(instance, "reviews/monday").nodes == 2


def test_what_was_refused_is_not_what_the_list_of_services_works_with(instance, place, template):
    job = definitions(Declaration("reviews", template)).resolve_job_def("deploy_reviews")
    instance.add_dynamic_partitions("reviews", ["monday"])
    slip = {"input_path": "file:///no/such/folder/", "output_path": f"file://{place.root}/elsewhere/"}
    for config in ({}, to_run_config(slip, "reviews")):
        job.execute_in_process(instance=instance, partition_key="monday", run_config=config, raise_on_error=False)
    assert services.show_service(instance, "reviews/monday").error.code == "InputMissing"
    services.describe_service(instance, "reviews/monday", "edited")
    recorded = services.recorded_parameters(instance, "reviews/monday")
    assert (recorded.output_path, recorded.description) == (f"file://{place.root}/out/monday/", "edited")
    assert services.delete_service(instance, "reviews/monday", results=True) > 0
    assert not list((place.root / "out/monday").glob("*.manifest"))


def test_a_service_shows_what_the_template_added_to_what_it_was_given(instance, place, template):
    job = definitions(Declaration("reviews", {**template, "node_count": 2})).resolve_job_def("deploy_reviews")
    instance.add_dynamic_partitions("reviews", ["monday"])
    given = {key: template[key] for key in ("model", "input_path")} | {"output_path": f"file://{place.root}/by-hand/"}
    config = to_run_config({**given, "environment": {"TOKEN": "secret"}}, "reviews")
    assert job.execute_in_process(instance=instance, partition_key="monday", run_config=config).success
    shown = services.show_service(instance, "reviews/monday")
    assert (shown.nodes, shown.output_path) == (2, given["output_path"])
    assert services.recorded_parameters(instance, "reviews/monday").environment == {"TOKEN": "secret"}


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


def test_the_list_tells_what_a_template_gave_without_reading_events(instance, place, template, capsys):
    ours = Declaration("reviews", {**template, "node_count": 2, "description": "by template"})
    job = definitions(ours).resolve_job_def("deploy_reviews")
    instance.add_dynamic_partitions("reviews", ["monday"])
    assert job.execute_in_process(instance=instance, partition_key="monday", run_config={}).success
    (listed,) = services.list_services(instance)
    shown = services.show_service(instance, "reviews/monday")
    same = ("name", "state", "model", "nodes", "output_path", "description", "inputs", "inputs_done")
    assert [getattr(listed, field) for field in same] == [getattr(shown, field) for field in same]
    assert (listed.nodes, listed.inputs_done, listed.description) == (2, 2, "by template")
    assert listed.output_path == f"file://{place.root}/out/monday/"
    assert run(["services", "list", "--json"]) == 0
    (summary,) = json.loads(capsys.readouterr().out)
    assert run(["services", "show", "reviews/monday", "--json"]) == 0
    assert summary.items() <= json.loads(capsys.readouterr().out).items()


def test_results_go_by_the_full_name(instance, place, template, capsys):
    ours = Declaration("reviews", template)
    instance.add_dynamic_partitions("reviews", ["monday"])
    job = definitions(ours).resolve_job_def("deploy_reviews")
    assert job.execute_in_process(instance=instance, partition_key="monday").success
    for name in ("reviews/monday", "monday", f"file://{place.root}/out/monday/"):
        assert len(batch_pipeline.load_results(name)) == 2
    assert run(["results", "reviews/monday", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert run(["results", "reviews/tuesday"]) == 2
    assert "there is no service reviews/tuesday" in capsys.readouterr().err


def test_the_limit_counts_the_services_of_all_declarations(instance, place, template, monkeypatch):
    monkeypatch.setenv("BATCH_PIPELINE_MAX_SERVICES", "2")
    fixed = Declaration("reviews", {**template, "output_path": f"file://{place.root}/out/"})
    job = definitions(fixed).resolve_job_def("deploy_reviews")
    assert job.execute_in_process(instance=instance, partition_key="reviews").success
    assert job.execute_in_process(instance=instance, partition_key="reviews").success
    instance.add_dynamic_partitions("ratings", ["monday"])
    dynamic = Declaration("ratings", {**template, "output_path": f"file://{place.root}/ratings/{{name}}/"})
    job = definitions(dynamic).resolve_job_def("deploy_ratings")
    assert job.execute_in_process(instance=instance, partition_key="monday").success
    assert existing_services(instance) == {"batch_service": set(), "reviews": {"reviews"}, "ratings": {"monday"}}
    with pytest.raises(LimitReached, match="2 services exist"):
        launch(place.parameters(output_path=f"file://{place.root}/third/"), wait=True, instance=instance)
    instance.add_dynamic_partitions("ratings", ["tuesday"])
    assert not job.execute_in_process(instance=instance, partition_key="tuesday", raise_on_error=False).success
    services.delete_service(instance, "reviews/reviews")
    assert job.execute_in_process(instance=instance, partition_key="tuesday").success
    assert existing_services(instance)["ratings"] == {"monday", "tuesday"}


def test_a_declaration_may_have_a_partition_of_its_own_name(instance, place, template):
    job = definitions(Declaration("reviews", template)).resolve_job_def("deploy_reviews")
    instance.add_dynamic_partitions("reviews", ["reviews"])
    assert job.execute_in_process(instance=instance, partition_key="reviews").success
    services.delete_service(instance, "reviews/reviews")
    assert not instance.has_dynamic_partition("reviews", "reviews")


def test_an_edited_description_stays_when_a_declared_service_runs_again(instance, place, template):
    job = definitions(Declaration("reviews", {**template, "description": "by template"}))
    instance.add_dynamic_partitions("reviews", ["monday"])
    job = job.resolve_job_def("deploy_reviews")
    assert job.execute_in_process(instance=instance, partition_key="monday").success
    services.describe_service(instance, "reviews/monday", "edited")
    assert job.execute_in_process(instance=instance, partition_key="monday").success
    assert services.show_service(instance, "reviews/monday").description == "edited"


@pytest.mark.parametrize("output", ["out/{{name}}/", "out/"])
def test_an_edited_description_stays_until_a_run_is_given_another(instance, place, template, output):
    """Whatever the runs between are launched with: nothing, what the Launchpad opens with, or other parameters."""
    template = {**template, "output_path": f"file://{place.root}/{output.format()}", "if_changed": "overwrite"}
    ours = Declaration("reviews", {**template, "description": "by template"})
    job, name = definitions(ours).resolve_job_def("deploy_reviews"), "reviews" if ours.is_fixed else "monday"
    if not ours.is_fixed:
        instance.add_dynamic_partitions("reviews", [name])

    def described_after(config):
        run_config = to_run_config(config, "reviews") if config else config
        assert job.execute_in_process(instance=instance, partition_key=name, run_config=run_config).success
        return services.show_service(instance, f"reviews/{name}").description

    assert described_after({}) == "by template"
    services.describe_service(instance, f"reviews/{name}", "edited")
    assert run_config_of_service(name, ours)["ops"]["reviews"]["config"]["description"] == "edited"
    assert [described_after(config) for config in ({}, None, {"node_count": 2}, {})] == ["edited"] * 4
    services.describe_service(instance, f"reviews/{name}", "again")
    assert described_after({}) == "again"
    assert described_after({"description": "given"}) == "given"
    assert described_after({}) == ("by template" if ours.is_fixed else "given")


@pytest.mark.parametrize(
    ("module", "text", "why"),
    [
        ("no_such_project", None, "no_such_project"),
        ("broken_project", "import os\nos.environ['NO_SUCH_VARIABLE']", "NO_SUCH_VARIABLE"),
        ("unwritten_project", "defs =", "invalid syntax"),
    ],
)
def test_a_service_of_a_project_that_is_not_here_is_refused(
    instance, place, template, tmp_path, monkeypatch, module, text, why
):
    """As where `services run` is called in another environment than that of the project."""
    if text is not None:
        (tmp_path / f"{module}.py").write_text(text)
        monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    job = definitions(Declaration("reviews", template)).resolve_job_def("deploy_reviews")
    elsewhere = ReconstructableRepository.for_module(module, "defs")
    instance.add_dynamic_partitions("reviews", ["monday"])
    instance.create_run_for_job(
        job,
        run_config=to_run_config({}, "reviews"),
        tags={"dagster/partition": "monday", "batch_pipeline/declaration": "reviews"},
        status=dg.DagsterRunStatus.FAILURE,
        job_code_origin=elsewhere.get_reconstructable_job("deploy_reviews").get_python_origin(),
    )
    config = {"model": "iris", "input_path": template["input_path"], "output_path": f"file://{place.root}/out/monday/"}
    with pytest.raises(Refused, match=rf"declares reviews can't be loaded here: .*{why}"):
        relaunch(
            instance,
            find_service(instance, "monday"),
            next(iter(instance.get_runs())),
            place.parameters(**config, name="monday"),
            wait=True,
        )


def test_what_a_service_was_given_stays_when_a_later_run_was_given_nothing(instance, place, template, monkeypatch):
    assets = definitions(Declaration("reviews", template)).resolve_job_def("deploy_reviews")
    instance.add_dynamic_partitions("reviews", ["monday"])
    given = to_run_config({"node_count": 2, "description": "two nodes"}, "reviews")
    for config in (given, {}):
        assert assets.execute_in_process(instance=instance, partition_key="monday", run_config=config).success
    assert recorded_run_config(instance, find_service(instance, "monday")) == given


def test_upstream_assets_may_have_partitions_of_their_own(place, template):
    @dg.asset(partitions_def=dg.DailyPartitionsDefinition("2026-01-01"))
    def exported() -> None: ...

    ours = Declaration("reviews", template, deps=(exported.key,))
    dg.Definitions.validate_loadable(dg.Definitions.merge(definitions(ours), dg.Definitions(assets=[exported])))


def queue(instance, definitions, ours, **tags):
    """A run of the page of an asset that has not begun, as a queue that is not ours has it."""
    keys = {ours.key(asset) for asset in ASSETS}
    job = definitions.resolve_job_def("__ASSET_JOB").get_subset(asset_selection=keys)
    tags = {"dagster/partition": "monday", **tags}
    return instance.create_run_for_job(job, tags=tags, asset_selection=frozenset(keys))


@pytest.mark.parametrize("prefix", [(), ("shop", "data")])
def test_a_service_is_listed_from_the_moment_that_its_run_is_made_and_beyond_it(instance, place, template, prefix):
    ours = Declaration("reviews", template, key_prefix=prefix)
    instance.add_dynamic_partitions("reviews", ["monday", "tuesday"])
    run = queue(instance, definitions(ours), ours)
    listed = {each.name: (each.state, each.nodes) for each in services.list_services(instance)}
    assert listed == {"reviews/monday": ("deploying", None), "reviews/tuesday": ("new", None)}
    assert services.show_service(instance, "monday").run_id == run.run_id
    instance.delete_run(run.run_id)
    assert {each.name: each.state for each in services.list_services(instance)} == {
        "reviews/monday": "new",
        "reviews/tuesday": "new",
    }


@pytest.mark.parametrize(("text", "listed"), [(None, ["reviews/monday"]), ("attributes: [", [])])
def test_the_partitions_of_our_own_code_location_are_listed_before_any_run(instance, tmp_path, text, listed):
    """In a process of its own, which loads the definitions as the command does."""
    (tmp_path / "declared/reviews").mkdir(parents=True)
    declaration = (
        "attributes: {service: {model: iris, input_path: s3://bucket/in/, output_path: 's3://bucket/{name}/'}}"
    )
    (tmp_path / "declared/reviews/defs.yaml").write_text(f"type: batch_pipeline.BatchService\n{text or declaration}\n")
    instance.add_dynamic_partitions("reviews", ["monday"])
    command = [sys.executable, "-m", "batch_pipeline", "services", "list", "--json"]
    env = {**os.environ, "BATCH_PIPELINE_SERVICES": str(tmp_path / "declared")}
    told = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert [each["name"] for each in json.loads(told.stdout)] == listed
    assert bool(listed) or "the declared services are not known: BATCH_PIPELINE_SERVICES: " in told.stderr
