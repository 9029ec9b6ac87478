"""The list of services, and what can be done with one."""

from __future__ import annotations

import subprocess
import sys

import dagster as dg
import pytest
from dagster._core.execution.api import execute_run
from dagster._core.storage.tags import PARENT_RUN_ID_TAG, RETRY_NUMBER_TAG, ROOT_RUN_ID_TAG

from batch_pipeline import service
from batch_pipeline.cli import run
from batch_pipeline.definitions import defs
from batch_pipeline.errors import (
    InvalidParameters,
    OutputRefused,
    Refused,
    ServiceBusy,
    ServiceChanged,
    ServiceNotFound,
)
from batch_pipeline.layout import OutputLayout
from batch_pipeline.orchestration import runs, services
from batch_pipeline.orchestration.admission import may_start_over
from batch_pipeline.orchestration.code_location import JobOrigin, create_run
from batch_pipeline.orchestration.config import to_run_config
from batch_pipeline.orchestration.failures import run_error
from batch_pipeline.orchestration.holders import end_dead_runs, holder_of, holder_tag
from batch_pipeline.orchestration.job import run_config_of_service
from batch_pipeline.orchestration.launching import launch
from batch_pipeline.orchestration.names import ASSETS, SERVICE, TAG_OVERWRITE
from batch_pipeline.ownership import Heartbeat, Owner, ProcessIdentity, claim, release


def gone() -> ProcessIdentity:
    """A process of this machine that has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = ProcessIdentity.of(process.pid)
        assert identity.state() == "alive"
        process.communicate(b"\n")
    return identity


def started(instance, parameters, process):
    """A run as a process leaves it that was killed."""
    run = create_run(instance, parameters)
    instance.add_dynamic_partitions(SERVICE, [parameters.name])
    instance.add_run_tags(run.run_id, holder_tag(process, run.run_id))
    for kind in (dg.DagsterEventType.PIPELINE_STARTING, dg.DagsterEventType.PIPELINE_START):
        instance.report_dagster_event(dg.DagsterEvent(kind.value, run.job_name), run.run_id)
    return run


def test_the_list_shows_every_service_newest_first(instance, place):
    launch(place.parameters(name="first", description="两朵花"), wait=True, instance=instance)
    launch(place.parameters(name="Second", output_path=f"file://{place.root}/out2/"), wait=False, instance=instance)
    second, first = services.list_services(instance)
    assert (first.name, first.state, first.model, first.nodes) == ("first", "finished", "iris", 1)
    assert (first.inputs, first.inputs_done, first.description) == (2, 2, "两朵花")
    assert first.started is not None
    assert first.seconds > 0
    assert (second.name, second.state, second.inputs, second.started) == ("Second", "deploying", None, None)
    assert [service.name for service in services.list_services(instance, search="SEC")] == ["Second"]
    assert services.list_services(instance, search="no such") == []


def test_a_service_shows_its_parameters_without_secrets_and_its_error(instance, place):
    place.put("notes.txt", "no csv")
    launch(place.parameters(environment={"A": "secret", "B": {"env": "HOME"}}), wait=True, instance=instance)
    shown = services.show_service(instance, "flowers")
    assert (shown.state, shown.error.code) == ("failed", "ThresholdExceeded")
    assert shown.parameters["environment"] == {"A": "********", "B": {"env": "HOME"}}
    assert shown.parameters["output_path"] == f"file://{place.root}/out/"


def test_a_service_that_does_not_exist_is_named(instance, place):
    for call in (services.show_service, services.stop_service, services.delete_service, services.recorded_parameters):
        with pytest.raises(ServiceNotFound, match="nobody"):
            call(instance, "nobody")


def test_a_queued_service_stops_at_once(instance, place):
    launch(place.parameters(), wait=False, instance=instance)
    services.stop_service(instance, "flowers")
    assert services.show_service(instance, "flowers").state == "stopped"
    with pytest.raises(Refused, match="is stopped: there is nothing to stop"):
        services.stop_service(instance, "flowers")


def test_a_run_of_the_command_line_is_asked_to_stop(instance, place):
    run = started(instance, place.parameters(), ProcessIdentity.current())
    services.stop_service(instance, "flowers")
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELING
    assert services.show_service(instance, "flowers").state == "running"


def test_running_again_takes_the_recorded_parameters(instance, place):
    first = launch(place.parameters(join_input=True), wait=True, instance=instance)
    again = services.run_service(instance, "flowers", wait=True)
    assert again.state == "finished"
    assert again.run_id != first.run_id
    assert instance.get_run_by_id(again.run_id).run_config == instance.get_run_by_id(first.run_id).run_config


def test_a_description_can_be_edited(instance, place):
    launch(place.parameters(description="old"), wait=True, instance=instance)
    services.describe_service(instance, "flowers", "new")
    assert services.show_service(instance, "flowers").description == "new"
    assert services.recorded_parameters(instance, "flowers").description == "new"
    with pytest.raises(InvalidParameters, match="description"):
        services.describe_service(instance, "flowers", "a=b")
    services.describe_service(instance, "flowers", "")
    assert services.recorded_parameters(instance, "flowers").description == ""


def test_a_service_at_work_is_neither_changed_nor_deleted(instance, place):
    launch(place.parameters(), wait=False, instance=instance)
    with pytest.raises(ServiceBusy):
        services.describe_service(instance, "flowers", "new")
    with pytest.raises(ServiceBusy):
        services.delete_service(instance, "flowers", results=True)


def test_deleting_keeps_the_results_unless_asked(instance, place):
    launch(place.parameters(), wait=True, instance=instance)
    assert services.delete_service(instance, "flowers") == 0
    assert services.list_services(instance) == []
    assert not instance.get_runs()
    assert len(place.files()) == 3

    launch(place.parameters(), wait=True, instance=instance)
    foreign = {place.output / "notes.txt", place.output / "infer-result/a_result.txt"}
    for path in foreign:
        path.write_text("mine")
    assert services.delete_service(instance, "flowers", results=True) > 3
    assert {path for path in place.output.rglob("*") if path.is_file()} == foreign
    with pytest.raises(OutputRefused, match="is not empty"):
        launch(place.parameters(), wait=True, instance=instance)
    for path in foreign:
        path.unlink()
    assert launch(place.parameters(), wait=True, instance=instance).state == "finished"


def test_a_service_that_is_at_work_elsewhere_is_not_deleted(instance, place, capsys, monkeypatch):
    """Its run is not one of this instance, or has ended there and left a process at work."""
    monkeypatch.setenv("BATCH_PIPELINE_LOCK_SECONDS", "1")
    launched = launch(place.parameters(), wait=True, instance=instance)
    before, storage, layout = place.files(), place.deployment.storage, OutputLayout(place.parameters().output)
    for run_id, said in (("elsewhere", "is at work on it"), (launched.run_id, "is still at work on it")):
        holder = Owner(run_id, "flowers", ProcessIdentity("elsewhere", "boot", 1, "1"))
        claim(storage, layout, holder)
        with Heartbeat(storage, layout, holder, lock_seconds=1).running():
            assert run(["services", "delete", "flowers", "--results"]) == 2
        release(storage, layout, run_id)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert f"run {run_id} of the service flowers" in line
        assert said in line
    assert place.files() == before
    assert services.show_service(instance, "flowers").state == "finished"


def test_a_service_whose_process_was_killed_is_deleted(instance, place):
    run = started(instance, place.parameters(), gone())
    owner = Owner(run.run_id, "flowers", holder_of(instance.get_run_by_id(run.run_id)))
    service.ingest(place.parameters(), place.deployment, owner)
    assert services.delete_service(instance, "flowers", results=True) > 0
    assert not [path for path in place.output.rglob("*") if path.is_file()]
    assert services.list_services(instance) == []


def test_a_run_whose_process_is_gone_has_failed_and_gives_its_pool_slot_back(instance, place):
    run = started(instance, place.parameters(), gone())
    events = instance.event_log_storage
    events.set_concurrency_slots("node_cpu_2u8g", 1)
    assert events.claim_concurrency_slot("node_cpu_2u8g", run.run_id, "step").is_claimed
    shown = services.show_service(instance, "flowers")
    assert (shown.state, shown.error.code) == ("failed", "ProcessGone")

    assert launch(place.parameters(), wait=True, instance=instance).state == "finished"
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE


def test_a_run_whose_process_went_before_it_started_has_failed_too(instance, place):
    create_run(instance, place.parameters(), gone())
    instance.add_dynamic_partitions(SERVICE, ["flowers"])
    assert services.show_service(instance, "flowers").state == "failed"
    assert services.delete_service(instance, "flowers") == 0


def test_a_re_execution_is_not_taken_for_its_parent(instance, place):
    """Dagster gives it all of its parent's tags, of which the holder's process is gone."""
    parent = started(instance, place.parameters(), gone())
    instance.add_run_tags(parent.run_id, {"batch_pipeline/inputs": "2", "batch_pipeline/inputs_done": "2"})
    assert end_dead_runs(instance) == [parent.run_id]
    child = create_run(instance, place.parameters())
    instance.add_run_tags(child.run_id, instance.get_run_by_id(parent.run_id).tags)
    for kind in (dg.DagsterEventType.PIPELINE_STARTING, dg.DagsterEventType.PIPELINE_START):
        instance.report_dagster_event(dg.DagsterEvent(kind.value, child.job_name), child.run_id)
    assert end_dead_runs(instance) == []
    shown = services.show_service(instance, "flowers")
    assert (shown.run_id, shown.state, shown.inputs_done) == (child.run_id, "running", None)


def test_a_run_whose_process_lives_or_is_elsewhere_is_left_alone(instance, place):
    elsewhere = ProcessIdentity("another-host", "", 1, "1")
    runs = [
        started(instance, place.parameters(name="here"), ProcessIdentity.current()),
        started(instance, place.parameters(name="there"), elsewhere),
    ]
    assert end_dead_runs(instance) == []
    assert all(instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED for run in runs)


def test_each_partition_has_its_services_recorded_parameters(instance, place, tmp_path, monkeypatch):
    launch(place.parameters(join_input=True), wait=True, instance=instance)
    config = run_config_of_service("flowers")["ops"]["batch_service"]["config"]
    assert config["join_input"] is True
    assert run_config_of_service("new") == {}
    default = tmp_path / "launchpad.yaml"
    default.write_text("name: demo\nmodel: iris\n")
    monkeypatch.setenv("BATCH_PIPELINE_LAUNCHPAD_CONFIG", str(default))
    assert run_config_of_service("new") == {"ops": {"batch_service": {"config": {"model": "iris"}}}}


def test_starting_over_is_told_to_one_run_and_not_recorded(instance, place):
    launch(place.parameters(), wait=True, instance=instance)
    changed = launch(place.parameters(join_input=True), wait=True, overwrite=True, instance=instance)
    assert changed.state == "finished"
    assert services.recorded_parameters(instance, "flowers").if_changed == "refuse"
    place.put("c.csv")
    with pytest.raises(ServiceChanged, match="the input list changed"):
        services.run_service(instance, "flowers", wait=True)
    again = services.run_service(instance, "flowers", wait=True, overwrite=True)
    assert (again.state, len(place.lines("infer-result-0.manifest"))) == ("finished", 3)


def test_a_queued_run_knows_that_it_may_start_over(instance, place):
    launch(place.parameters(), wait=True, instance=instance)
    queued = launch(place.parameters(join_input=True), wait=False, overwrite=True, instance=instance)
    # As the daemon and its launcher do.
    for kind in (dg.DagsterEventType.PIPELINE_DEQUEUED, dg.DagsterEventType.PIPELINE_STARTING):
        instance.report_dagster_event(dg.DagsterEvent(kind.value, "deploy_service"), queued.run_id)
    execute_run(JobOrigin.own().job, instance.get_run_by_id(queued.run_id), instance)
    assert services.show_service(instance, "flowers").state == "finished"
    assert services.recorded_parameters(instance, "flowers").if_changed == "refuse"


def test_a_service_that_always_starts_over_keeps_that(instance, place):
    launch(place.parameters(if_changed="overwrite"), wait=True, instance=instance)
    place.put("c.csv")
    assert services.run_service(instance, "flowers", wait=True).state == "finished"
    assert services.recorded_parameters(instance, "flowers").if_changed == "overwrite"


def test_a_partition_that_never_ran_is_new(instance, place, capsys):
    instance.add_dynamic_partitions(SERVICE, ["by-hand"])
    assert run(["services", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split("\t")[:4] == ["by-hand", "new", "", ""]
    assert run(["services", "show", "by-hand"]) == 0
    assert run(["services", "show", "by-hand", "--json"]) == 0
    for command in (["stop", "by-hand"], ["run", "by-hand"], ["describe", "by-hand", "text"]):
        assert run(["services", *command]) == 2
    assert run(["services", "delete", "by-hand"]) == 0
    assert services.list_services(instance) == []


def test_a_service_without_a_name_says_how_to_run_it_again(instance, place):
    place.put("notes.txt", "no csv")
    nameless = place.parameters().model_copy(update={"name": None})
    failed = launch(nameless, wait=True, instance=instance)
    assert failed.message.endswith(f". To run it again: batch-pipeline services run {failed.service}")
    assert "infer-error-*.manifest" in failed.message
    with pytest.raises(OutputRefused, match=rf"deploy it by its name \(--name {failed.service}\)"):
        launch(nameless, wait=True, instance=instance)
    (place.root / "in/notes.txt").unlink()
    (place.root / "in/notes.txt.csv").write_text("1,2,3,4\n")
    assert services.run_service(instance, failed.service, wait=True, overwrite=True).state == "finished"


def test_a_run_at_work_goes_before_a_newer_one_that_was_refused(instance, place):
    at_work = started(instance, place.parameters(), ProcessIdentity.current())
    refused = create_run(instance, place.parameters())
    instance.report_run_failed(instance.get_run_by_id(refused.run_id))
    shown = services.show_service(instance, "flowers")
    assert (shown.run_id, shown.state) == (at_work.run_id, "running")
    with pytest.raises(ServiceBusy):
        services.delete_service(instance, "flowers")


def test_all_runs_of_a_service_are_stopped(instance, place):
    queued = [instance.submit_run(create_run(instance, place.parameters()).run_id, None) for _ in range(2)]
    instance.add_dynamic_partitions(SERVICE, ["flowers"])
    services.stop_service(instance, "flowers")
    assert {instance.get_run_by_id(run.run_id).status for run in queued} == {dg.DagsterRunStatus.CANCELED}


def test_older_runs_of_a_service_are_not_read_for_the_others(instance, place, monkeypatch):
    monkeypatch.setattr(runs, "PAGE", 2)
    oldest = create_run(instance, place.parameters(name="quiet"))
    newest = [create_run(instance, place.parameters(name="busy")) for _ in range(7)][-1]
    found = runs.latest_records(instance, SERVICE, ["quiet", "busy", "never"])
    assert {name: record.dagster_run.run_id for name, record in found.items()} == {
        "quiet": oldest.run_id,
        "busy": newest.run_id,
    }


def test_a_new_service_that_its_run_refuses_leaves_nothing(instance, place):
    parameters = place.parameters(name="loser")
    storage, layout = place.deployment.storage, OutputLayout(parameters.output)
    # Of the same name on another machine: only the run finds out, by waiting, whether it lives.
    elsewhere = Owner("run-elsewhere", "loser", ProcessIdentity("elsewhere", "boot", 1, "1"))
    claim(storage, layout, elsewhere)
    with Heartbeat(storage, layout, elsewhere).running():
        launched = launch(parameters, wait=True, instance=instance)
    assert (launched.state, launched.error.code, launched.refused) == ("failed", "ServiceLocked", True)
    assert services.list_services(instance) == []
    assert not instance.get_runs()


def test_an_edited_description_goes_with_a_run_that_is_executed_again(instance, place):
    first = launch(place.parameters(description="old"), wait=True, instance=instance)
    services.describe_service(instance, "flowers", "new")
    parent = instance.get_run_by_id(first.run_id)
    for config, expected in ((parent.run_config, "new"), (to_run_config(place.parameters().to_config()), "")):
        again = create_run(instance, place.parameters(description="old"))
        lineage = {PARENT_RUN_ID_TAG: first.run_id, ROOT_RUN_ID_TAG: first.run_id}
        instance.delete_run(again.run_id)
        again = again._replace(
            tags={**parent.tags, **lineage},
            run_config=config,
            parent_run_id=first.run_id,
            root_run_id=first.run_id,
            status=dg.DagsterRunStatus.NOT_STARTED,
        )
        instance.add_run(again)
        execute_run(JobOrigin.own().job, again, instance)
        assert services.recorded_parameters(instance, "flowers").description == expected
        assert services.show_service(instance, "flowers").state == "finished"


def test_only_the_run_itself_or_its_own_retry_may_start_over(instance, place):
    run = create_run(instance, place.parameters())
    retry = run._replace(run_id="retry", root_run_id=run.run_id, tags={TAG_OVERWRITE: run.run_id})
    assert may_start_over(run._replace(tags={TAG_OVERWRITE: run.run_id}))
    assert not may_start_over(run)
    assert not may_start_over(retry)
    assert may_start_over(retry._replace(tags={**retry.tags, RETRY_NUMBER_TAG: "1"}))


def test_a_run_that_somebody_waits_for_is_not_started_again_by_a_daemon(instance, place):
    launched = launch(place.parameters(), wait=True, instance=instance)
    assert instance.get_run_by_id(launched.run_id).tags["dagster/max_retries"] == "0"
    run = started(instance, place.parameters(name="queued"), gone())
    assert end_dead_runs(instance) == [run.run_id]
    ended = instance.get_run_by_id(run.run_id)
    assert (ended.tags["dagster/will_retry"], ended.tags["dagster/retry_strategy"]) == ("true", "ALL_STEPS")


def test_an_older_run_is_not_executed_again_over_what_a_newer_one_made(instance, place):
    """As the UI's button "from failure" would: it begins with what the older run's first steps handed over."""
    place.put("notes.txt", "no csv")
    older = launch(place.parameters(), wait=True, instance=instance)
    newer = launch(place.parameters(join_input=True, error_threshold=1), wait=True, overwrite=True, instance=instance)
    assert (older.state, newer.state) == ("failed", "finished")
    before = instance.get_latest_materialization_event(dg.AssetKey("output_manifest")).run_id
    options = dg.ReexecutionOptions(parent_run_id=older.run_id, step_selection=["batch_service.write_manifests"])
    with dg.execute_job(
        JobOrigin.own().job, instance=instance, tags={"dagster/partition": "flowers"}, reexecution_options=options
    ) as result:
        assert not result.success
        error = run_error(instance, result.run_id)
    assert (error.code, newer.run_id in error.message) == ("ServiceMadeOver", True)
    assert "join_input was False and is True" in error.message
    assert instance.get_latest_materialization_event(dg.AssetKey("output_manifest")).run_id == before == newer.run_id


def materialize(instance, name):
    """As from the page of an asset, with no config."""
    job = defs.resolve_job_def("__ASSET_JOB").get_subset(asset_selection={dg.AssetKey(name) for name in ASSETS})
    return job.execute_in_process(instance=instance, partition_key=name, run_config={}, raise_on_error=False)


def test_a_service_that_ran_before_is_materialized_with_its_recorded_parameters(instance, place):
    launch(place.parameters(join_input=True, error_threshold=0.5), wait=True, instance=instance)
    services.describe_service(instance, "flowers", "edited")
    place.put("c.csv")
    refused = materialize(instance, "flowers")
    assert not refused.success
    assert "the input list changed" in run_error(instance, refused.run_id).message
    (place.root / "in/c.csv").unlink()
    again = materialize(instance, "flowers")
    assert again.success
    shown = services.show_service(instance, "flowers")
    assert (shown.run_id, shown.state, shown.description) == (again.run_id, "finished", "edited")
    assert (shown.parameters["join_input"], shown.parameters["error_threshold"]) == (True, 0.5)
    assert services.recorded_parameters(instance, "flowers").join_input


def test_a_new_service_that_is_materialized_with_no_config_says_what_is_needed(instance, place):
    instance.add_dynamic_partitions(SERVICE, ["by-hand"])
    refused = materialize(instance, "by-hand")
    error = run_error(instance, refused.run_id)
    assert (error.code, error.refused, "\n" in error.message) == ("InvalidParameters", True, False)
    assert all(f"{key}: is missing" in error.message for key in ("model", "input_path", "output_path"))
    shown = services.show_service(instance, "by-hand")
    assert (shown.state, shown.error) == ("failed", error)
    with pytest.raises(InvalidParameters, match="model: is missing"):
        services.run_service(instance, "by-hand", wait=True)
    assert services.delete_service(instance, "by-hand", results=True) == 0
    assert services.list_services(instance) == []


Q, S = dg.DagsterRunStatus, dg.DagsterEventType
STATES = [
    (Q.NOT_STARTED, [], "deploying"),
    (Q.QUEUED, [S.PIPELINE_ENQUEUED], "deploying"),
    (Q.STARTING, [S.PIPELINE_ENQUEUED, S.PIPELINE_DEQUEUED, S.PIPELINE_STARTING], "deploying"),
    (Q.STARTED, [S.PIPELINE_STARTING, S.PIPELINE_START], "running"),
    (Q.CANCELING, [S.PIPELINE_STARTING, S.PIPELINE_START, S.PIPELINE_CANCELING], "running"),
    (Q.CANCELED, [S.PIPELINE_STARTING, S.PIPELINE_START, S.PIPELINE_CANCELED], "stopped"),
    (Q.FAILURE, [S.PIPELINE_STARTING, S.PIPELINE_START, S.PIPELINE_FAILURE], "failed"),
    (Q.SUCCESS, [S.PIPELINE_STARTING, S.PIPELINE_START, S.PIPELINE_SUCCESS], "finished"),
]


@pytest.mark.parametrize(("status", "events", "state"), STATES, ids=[status.value for status, *_ in STATES])
def test_each_status_of_a_run_is_a_state_of_its_service(instance, place, status, events, state):
    run = create_run(instance, place.parameters())
    instance.add_dynamic_partitions(SERVICE, ["flowers"])
    for kind in events:
        instance.report_dagster_event(dg.DagsterEvent(kind.value, run.job_name), run.run_id)
    assert instance.get_run_by_id(run.run_id).status == status
    (listed,) = services.list_services(instance)
    shown = services.show_service(instance, "flowers")
    assert (listed.state, shown.state, shown.run_id, shown.nodes) == (state, state, run.run_id, 1)


def test_a_service_whose_run_was_deleted_in_the_ui_is_new_again(instance, place):
    launched = launch(place.parameters(), wait=False, instance=instance)
    instance.delete_run(launched.run_id)
    assert services.show_service(instance, "flowers").state == "new"
    with pytest.raises(ServiceNotFound, match="flowers has no run"):
        services.run_service(instance, "flowers")


def test_a_service_whose_partition_was_deleted_can_still_be_stopped(instance, place):
    launch(place.parameters(), wait=False, instance=instance)
    instance.delete_dynamic_partition(SERVICE, "flowers")
    assert [each.name for each in services.list_services(instance)] == ["flowers"]
    services.stop_service(instance, "flowers")
    assert services.list_services(instance) == []
