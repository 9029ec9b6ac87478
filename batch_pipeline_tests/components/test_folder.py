"""The declared services of our own code location: a folder of declarations beside the Launchpad's services."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from batch_pipeline.components.folder import load_folder
from batch_pipeline.definitions import build_definitions
from batch_pipeline.errors import InvalidSettings

RATINGS = """\
type: batch_pipeline.BatchService

attributes:
  service:
    model: iris
    input_path: s3://bucket/in/
    output_path: s3://bucket/ratings/
"""
REVIEWS = """\
type: batch_pipeline.BatchService

attributes:
  service:
    model: iris
    output_path: s3://bucket/reviews/{name}/
  triggers:
    - manifests: {path: "s3://bucket/incoming/"}
    - schedule: {cron: "0 6 * * *"}
"""


def declared(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / name).mkdir()
        (folder / name / "defs.yaml").write_text(text)
    return folder


def test_they_stand_beside_the_services_of_the_launchpad(tmp_path):
    reviews = REVIEWS.replace("    model: iris\n", "    model: iris\n    input_path: s3://bucket/in/\n")
    folder = declared(tmp_path, ratings=RATINGS, reviews=reviews)
    definitions = build_definitions(env={"BATCH_PIPELINE_SERVICES": str(folder)})
    dg.Definitions.validate_loadable(definitions)
    jobs = {job.name for job in definitions.resolve_all_job_defs()}
    assert {"deploy_service", "deploy_ratings", "deploy_reviews"} <= jobs
    assert "reviews_manifests" in {sensor.name for sensor in definitions.sensors or ()}
    assert [schedule.name for schedule in definitions.schedules or ()] == ["reviews_schedule"]


def test_an_empty_folder_declares_nothing(tmp_path):
    assert not load_folder(tmp_path).assets


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidSettings, match=r"BATCH_PIPELINE_SERVICES: .*/nowhere is no folder"):
        load_folder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("    node_cuont: 3", "{file}:8: service.node_cuont: Extra inputs are not permitted"),
        ("    node_count: many", "{file}:8: service.node_count: must be an integer of 1 or more, not 'many'"),
        ("    csv: 3\n  grup: shop", "{file}:8: service.csv: Input should be an object"),
        ("    csv: 3\n  grup: shop", "; {file}:9: grup: Extra inputs are not permitted"),
        ("  owners: [nobody]", "{file}:3: Invalid owner 'nobody'"),
        ('  description: "{{ nothing }}"', "{file}:8: description: UndefinedError: 'nothing' not found in scope"),
        ("  automation_condition: '{{ dg.FreshnessPolicy }}'", "{{ dg.AutomationCondition.eager() }} makes one"),
        ("  - shop", "{file}, line 8: not YAML: "),
        ("---\ntype: shop.Unknown", "`shop`"),
    ],
)
def test_a_mistake_is_told_on_one_line(added, message, tmp_path):
    folder = declared(tmp_path, ratings=f"{RATINGS}{added}\n")
    with pytest.raises(InvalidSettings) as raised:
        load_folder(folder)
    told = raised.value.message
    assert message.replace("{file}", str(tmp_path / "ratings/defs.yaml")) in told
    assert "\n" not in told


def test_the_value_of_a_variable_is_not_repeated(tmp_path):
    text = RATINGS + "    environment: [the-secret]\n"
    with pytest.raises(InvalidSettings, match=r"defs.yaml:8: service.environment") as raised:
        load_folder(declared(tmp_path, ratings=text))
    assert "the-secret" not in raised.value.message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "No components found in YAML file"),
        (RATINGS.replace("type:", "tipe:"), "tipe: Extra inputs are not permitted"),
        (RATINGS.replace("batch_pipeline.", "b-p."), "Invalid component type name: `b-p.BatchService`"),
    ],
)
def test_a_file_that_declares_nothing_is_told_on_one_line(tmp_path, text, says):
    with pytest.raises(InvalidSettings, match=r"^BATCH_PIPELINE_SERVICES: ") as raised:
        load_folder(declared(tmp_path, ratings=text))
    assert says in raised.value.message
    assert "\n" not in raised.value.message
