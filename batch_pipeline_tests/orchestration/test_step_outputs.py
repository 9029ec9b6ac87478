"""Steps on several machines hand each other what they need through the bucket that the deployment names."""

from __future__ import annotations

import os
import subprocess
import sys

import dagster as dg
import pytest

from batch_pipeline.definitions import build_definitions
from batch_pipeline.errors import InvalidSettings
from batch_pipeline.locations import Location
from batch_pipeline.orchestration.config import to_run_config
from batch_pipeline.orchestration.names import JOB, SERVICE
from batch_pipeline.storage import Storage


def test_they_go_through_the_bucket(instance, place, moto_bucket):
    place.put("a.csv")
    definitions = build_definitions(
        env={**os.environ, "BATCH_PIPELINE_STEP_OUTPUTS": f"s3://{moto_bucket}/steps"}, executor=dg.in_process_executor
    )
    instance.add_dynamic_partitions(SERVICE, ["flowers"])
    result = definitions.resolve_job_def(JOB).execute_in_process(
        run_config=to_run_config(place.parameters().to_config()), partition_key="flowers", instance=instance
    )
    assert result.success
    kept = {info.location.key for info in Storage().list(Location(moto_bucket, ""))}
    assert "steps/input_manifest/flowers" in kept
    assert any(key.startswith("steps/") and "node_0" in key for key in kept), kept


def test_without_it_nothing_of_the_cloud_is_imported():
    code = "import sys, batch_pipeline.definitions; print('dagster_aws' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"


def test_a_local_folder_is_refused():
    with pytest.raises(InvalidSettings, match="BATCH_PIPELINE_STEP_OUTPUTS"):
        build_definitions(
            env={"BATCH_PIPELINE_STEP_OUTPUTS": "file:///steps/", "BATCH_PIPELINE_ALLOW_LOCAL_FILES": "1"}
        )
