"""Which instance the command line works with."""

from __future__ import annotations

import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus

from batch_pipeline.errors import InvalidSettings
from batch_pipeline.orchestration.home import dagster_home
from batch_pipeline.orchestration.instance import open_instance
from batch_pipeline.orchestration.launcher import ServiceRunLauncher
from batch_pipeline.orchestration.names import TAG_SERVICE


def test_dagster_home_is_taken_as_it_is(tmp_path):
    assert dagster_home({"DAGSTER_HOME": str(tmp_path)}) == tmp_path
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("home", ["relative", "/no/such/folder"])
def test_a_dagster_home_that_is_no_folder_is_refused(home):
    with pytest.raises(InvalidSettings, match="DAGSTER_HOME"):
        dagster_home({"DAGSTER_HOME": home})


def test_without_one_it_is_a_folder_of_the_user_with_our_settings(tmp_path):
    home = dagster_home({"XDG_DATA_HOME": str(tmp_path)})
    assert home == tmp_path / "batch-pipeline"
    assert home.stat().st_mode & 0o077 == 0
    assert "telemetry" in (home / "dagster.yaml").read_text()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    dagster_home({"XDG_DATA_HOME": str(tmp_path)})
    assert (home / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"


def test_an_instance_that_cannot_be_read_is_refused(home):
    (home / "dagster.yaml").write_text("no_such_key: 1\n")
    with pytest.raises(InvalidSettings, match=r"dagster\.yaml"):
        open_instance()


def test_our_instance_has_limits_and_no_telemetry(instance):
    assert not instance.telemetry_enabled
    assert not instance.nux_enabled
    config = instance.get_concurrency_config()
    assert config.pool_config.default_pool_limit == 8
    assert config.run_queue_config.max_concurrent_runs == 4
    assert instance.run_monitoring_enabled
    assert instance.scheduler.max_tick_retries == 10


def test_our_instance_misses_crashed_runs_and_retries_nothing_else(instance):
    assert isinstance(instance.run_launcher, ServiceRunLauncher)
    assert instance.run_launcher.supports_check_run_worker_health
    assert instance.run_monitoring_poll_interval_seconds == 30
    assert (instance.run_retries_max_retries, instance.run_retries_retry_on_asset_or_op_failure) == (2, False)
    (limit,) = instance.get_concurrency_config().run_queue_config.tag_concurrency_limits
    assert (limit["key"], limit["limit"]) == (TAG_SERVICE, 1)
    assert instance.get_tick_retention_settings(InstigatorType.SENSOR)[TickStatus.SKIPPED] == 1
