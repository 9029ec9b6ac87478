"""The schedules of a declaration: one service for each time, or the fixed one again; none while it is at work."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.storage.tags import RUN_KEY_TAG, SCHEDULED_EXECUTION_TIME_TAG
from dagster._utils.schedules import schedule_execution_time_iterator

from batch_pipeline.errors import InvalidParameters
from batch_pipeline.orchestration import services
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.declaration_check import check_declaration
from batch_pipeline.orchestration.requests import TickFailed
from batch_pipeline.orchestration.resources import resources_of
from batch_pipeline.settings import Settings
from batch_pipeline.triggers.settings import ScheduleTrigger
from batch_pipeline_tests.orchestration.ticks import definitions_of

SIX = datetime(2026, 11, 23, 6, tzinfo=UTC)
SEVEN = SIX.replace(hour=7)
DAILY = ScheduleTrigger("0 6 * * *", "Europe/Berlin")
SUCCESS, UNLAUNCHED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.NOT_STARTED


class Schedule:
    """The schedule of a declaration on a real instance."""

    def __init__(self, instance: dg.DagsterInstance, declaration: Declaration) -> None:
        self.instance = instance
        self.definitions = definitions_of(declaration)
        self.job = self.definitions.resolve_job_def(declaration.job)
        self._schedule = self.definitions.resolve_schedule_def(f"{declaration.name}_schedule")

    def evaluate(self, time: datetime) -> tuple[list[dg.RunRequest], str]:
        """The runs that a tick asks for, and why it asks for none."""
        context = dg.build_schedule_context(
            scheduled_execution_time=time,
            resources=dict(resources_of(None)),
            repository_def=self.definitions.get_repository_def(),
            instance_ref=self.instance.get_ref(),
        )
        with context:
            data = self._schedule.evaluate_tick(context)
        return list(data.run_requests or ()), data.skip_message or ""

    def make(self, run: dg.RunRequest, time: datetime, status: dg.DagsterRunStatus = SUCCESS) -> dg.DagsterRun:
        """As the daemon does."""
        tags = {**run.tags, RUN_KEY_TAG: str(run.run_key), SCHEDULED_EXECUTION_TIME_TAG: time.isoformat()}
        return self.instance.create_run_for_job(self.job, run_config=run.run_config, tags=tags, status=status)


@pytest.fixture
def template(place):
    return {
        "model": "iris",
        "input_path": f"file://{place.root}/in/",
        "output_path": f"file://{place.root}/out/{{time}}/",
        "description": "Of {time}",
    }


@pytest.fixture
def schedule(instance, template):
    return Schedule(instance, Declaration("reviews", template, triggers=(DAILY,)))


@pytest.fixture
def fixed(instance, template, place):
    template = {**template, "output_path": f"file://{place.root}/out/", "description": "Again"}
    return Schedule(instance, Declaration("reviews", template, triggers=(DAILY,)))


def test_each_time_is_one_service_named_after_it(instance, place, schedule):
    (first,), _ = schedule.evaluate(SIX)
    assert first.partition_key == "reviews-20261123T060000Z"
    config = first.run_config["ops"]["reviews"]["config"]
    assert config["output_path"] == f"file://{place.root}/out/20261123T060000Z/"
    assert config["description"] == "Of 20261123T060000Z"
    schedule.make(first, SIX)
    (second,), _ = schedule.evaluate(SEVEN)
    assert second.partition_key == "reviews-20261123T070000Z"
    assert instance.get_dynamic_partitions("reviews") == [first.partition_key, second.partition_key]


def test_the_time_is_named_in_utc(schedule):
    (run,), _ = schedule.evaluate(datetime(2026, 11, 23, 6, tzinfo=ZoneInfo("Europe/Berlin")))
    assert run.partition_key == "reviews-20261123T050000Z"


def test_the_service_of_a_time_runs(instance, place, schedule):
    (run,), _ = schedule.evaluate(SIX)
    done = schedule.job.execute_in_process(
        instance=instance, run_config=run.run_config, partition_key=run.partition_key, tags=run.tags
    )
    assert done.success
    assert (place.root / "out/20261123T060000Z/infer-result-0.manifest").exists()
    assert services.show_service(instance, "reviews/reviews-20261123T060000Z").state == "finished"


def test_an_evaluation_that_is_lost_is_made_again_with_the_same_run_key(instance, schedule):
    (lost,), _ = schedule.evaluate(SIX)
    (again,), _ = schedule.evaluate(SIX)
    assert (again.run_key, again.run_config) == (lost.run_key, lost.run_config)
    assert instance.get_dynamic_partitions("reviews") == [lost.partition_key]
    # Also where its run was made by then, and not launched: Dagster takes it up by its key.
    schedule.make(lost, SIX, UNLAUNCHED)
    (taken_up,), _ = schedule.evaluate(SIX)
    assert taken_up.run_key == lost.run_key


def test_a_service_of_that_name_that_ran_otherwise_is_left_alone(schedule):
    (run,), _ = schedule.evaluate(SIX)
    schedule.make(run, SEVEN)
    runs, reason = schedule.evaluate(SIX)
    assert runs == []
    assert "was made already" in reason


def test_the_limit_of_services_fails_the_tick_and_the_next_recovers(instance, schedule, monkeypatch):
    (run,), _ = schedule.evaluate(SIX)
    schedule.make(run, SIX)
    with monkeypatch.context() as patch:
        patch.setenv("BATCH_PIPELINE_MAX_SERVICES", "1")
        with pytest.raises(TickFailed, match="BATCH_PIPELINE_MAX_SERVICES") as failed:
            schedule.evaluate(SEVEN)
        assert "\n" not in str(failed.value)
    assert instance.get_dynamic_partitions("reviews") == [run.partition_key]
    (later,), _ = schedule.evaluate(SEVEN)
    assert later.partition_key == "reviews-20261123T070000Z"


def test_the_fixed_service_runs_again_at_each_time(instance, fixed):
    (first,), _ = fixed.evaluate(SIX)
    fixed.make(first, SIX)
    (second,), _ = fixed.evaluate(SEVEN)
    assert first.partition_key == second.partition_key == "reviews"
    assert first.run_key != second.run_key
    assert instance.get_dynamic_partitions("reviews") == []


def test_a_fixed_service_still_at_work_is_skipped(fixed):
    (first,), _ = fixed.evaluate(SIX)
    run = fixed.make(first, SIX, UNLAUNCHED)
    assert fixed.evaluate(SEVEN) == ([], f"the service reviews/reviews is still deploying (run {run.run_id})")
    fixed.instance.report_run_canceled(run)
    assert len(fixed.evaluate(SEVEN)[0]) == 1


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        (ScheduleTrigger("every day"), "'every day' is no cron schedule"),
        (ScheduleTrigger("61 * * * *"), "is no cron schedule"),
        (ScheduleTrigger("0 6 * * *", "Europe/Atlantis"), "'Europe/Atlantis' is no time zone"),
    ],
)
def test_a_time_that_never_comes_is_refused(template, trigger, said):
    with pytest.raises(InvalidParameters, match=f"declaration reviews: schedule.*{said}"):
        definitions_of(Declaration("reviews", template, triggers=(trigger,)))


@pytest.mark.parametrize(
    ("cron", "start", "expected"),
    [
        # 02:30 is not there on 29 March, and twice there on 25 October.
        ("30 2 * * *", datetime(2026, 3, 27, 12, tzinfo=UTC), ["28T0130", "29T0100", "30T0030", "31T0030"]),
        ("30 2 * * *", datetime(2026, 10, 23, 12, tzinfo=UTC), ["24T0030", "25T0130", "26T0130", "27T0130"]),
        ("30 * * * *", datetime(2026, 3, 29, tzinfo=UTC), ["29T0030", "29T0130", "29T0230"]),
        ("30 * * * *", datetime(2026, 10, 25, tzinfo=UTC), ["25T0030", "25T0130", "25T0230"]),
    ],
)
def test_each_time_is_one_service_where_the_clocks_change(instance, template, cron, start, expected):
    trigger = ScheduleTrigger(cron, "Europe/Berlin")
    schedule = Schedule(instance, Declaration("reviews", template, triggers=(trigger,)))
    times = schedule_execution_time_iterator(start.timestamp(), cron, trigger.timezone, ascending=True)
    names = []
    for time in islice(times, len(expected)):
        (run,), _ = schedule.evaluate(time)
        schedule.make(run, time)
        names.append(run.partition_key)
    assert names == [f"reviews-2026{start:%m}{when}00Z" for when in expected]


def test_the_same_times_twice_are_refused(template):
    triggers = (DAILY, ScheduleTrigger("0  6 * * *"), ScheduleTrigger("0 6 * * *"), DAILY)
    with pytest.raises(InvalidParameters) as refused:
        check_declaration(Declaration("reviews", template, triggers=triggers), Settings(allow_local_files=True))
    assert [str(problem) for problem in refused.value.problems] == [
        "triggers.2: is the schedule of triggers.1 once more: one is enough",
        "triggers.3: is the schedule of triggers.0 once more: one is enough",
    ]


def test_each_schedule_says_what_it_does_and_is_off(template):
    triggers = (DAILY, ScheduleTrigger("30 12 * * 1"))
    ours = Declaration("reviews", template, triggers=triggers, owners=("team:ml",))
    schedules = {each.name: each for each in definitions_of(ours).get_repository_def().schedule_defs}
    assert set(schedules) == {"reviews_schedule", "reviews_schedule_2"}
    first = schedules["reviews_schedule"]
    assert first.default_status == dg.DefaultScheduleStatus.STOPPED
    assert (first.cron_schedule, first.execution_timezone) == ("0 6 * * *", "Europe/Berlin")
    assert "a service of `reviews`" in first.description
