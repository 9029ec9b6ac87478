"""Declared services as YAML of a Dagster project: what becomes of every attribute, and what a mistake is told as."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from textwrap import dedent

import dagster as dg
import pytest
from dagster.components.core.component_tree import ComponentTreeException
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox

from batch_pipeline import BatchService
from batch_pipeline.parameters import ServiceParameters

ASSETS = ("input_manifest", "inference_results", "output_manifest")

EVERYTHING = """
type: batch_pipeline.BatchService
template_vars_module: .executors

attributes:
  name: reviews
  service:
    model: "{{ env.MODEL }}"
    output_path: s3://bucket/reviews/{name}/
    node_count: "{{ 1 + 1 }}"
    description: "of {stem}, {{ 'by' }} {time}"
    if_changed: overwrite
    csv: {missing: nan}
  triggers:
    - manifests: {path: "s3://bucket/incoming/", interval_seconds: 5}
    - new_files: {path: "s3://bucket/uploads/", settle_seconds: 5, max_files: 10, max_bytes: 1000, pattern: "*.csv"}
    - notifications: {queue_url: "https://sqs.us-east-1.amazonaws.com/123456789012/new", path: "s3://bucket/others/"}
    - model: {interval_seconds: 90}
  description: What people say of the shop.
  deps: [shop/exported_reviews]
  key_prefix: shop/data
  group_name: shop
  owners: ["team:shop", "ann@example.com"]
  tags: {domain: shop, level: 2}
  kinds: [onnx, iris]
  freshness_policy: "{{ dg.FreshnessPolicy.time_window(fail_window=datetime.timedelta(hours=24)) }}"
  automation_condition: "{{ dg.AutomationCondition.on_missing() }}"
  executor: "{{ in_process }}"
"""
EXECUTORS = """
import dagster as dg


@dg.template_var
def in_process(context: dg.ComponentLoadContext) -> dg.ExecutorDefinition:
    return dg.in_process_executor
"""
FILES = (("any_folder/defs.yaml", EVERYTHING), ("any_folder/executors.py", EXECUTORS))
FIXED = """
type: batch_pipeline.BatchService

attributes:
  service:
    model: iris
    input_path: s3://bucket/in/
    output_path: s3://bucket/ratings/
"""
RATINGS = (
    "ratings/defs.yaml",
    f"""{FIXED}  triggers: [{{schedule: {{cron: "0 6 * * *", timezone: Europe/Berlin}}}}]
  deps: [shop/exported_reviews]
  automation_condition: "{{{{ dg.AutomationCondition.eager() }}}}"
""",
)
UPSTREAM = (
    "upstream.py",
    """
import dagster as dg


@dg.asset(key_prefix="shop")
def exported_reviews() -> None: ...
""",
)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the machine of somebody who has only installed the package."""
    for name in [name for name in os.environ if name.startswith(("BATCH_PIPELINE_", "AWS_"))]:
        monkeypatch.delenv(name)


@contextmanager
def project(*files: tuple[str, str]) -> Iterator[dg.Definitions]:
    """The definitions of a project with these files, (path below `defs`, text)."""
    with sandbox_with(*files) as sandbox, sandbox.build_all_defs() as definitions:
        dg.Definitions.validate_loadable(definitions)
        yield definitions


@contextmanager
def sandbox_with(*files: tuple[str, str]) -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as sandbox:
        for name, text in files:
            path = sandbox.defs_folder_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        yield sandbox


def refusal(text: str) -> str:
    """What the error says at last."""
    with pytest.raises(ComponentTreeException) as raised, project(("ratings/defs.yaml", text)):
        pass
    assert raised.value.__cause__ is not None
    return str(raised.value.__cause__)


def keys(definitions: dg.Definitions) -> set[str]:
    return {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}


def test_every_attribute_is_loaded(monkeypatch):
    monkeypatch.setenv("MODEL", "iris")
    with project(*FILES, UPSTREAM) as definitions:
        graph = definitions.resolve_asset_graph()
        ours = [graph.get(dg.AssetKey(["shop", "data", "reviews", asset])) for asset in ASSETS]
        job = definitions.resolve_job_def("deploy_reviews")
        sensors = {sensor.name: sensor for sensor in definitions.sensors or ()}
    for node in ours:
        assert node.group_name == "shop"
        assert set(node.owners) == {"team:shop", "ann@example.com"}
        assert {"domain": "shop", "level": "2"}.items() <= node.tags.items()
        assert {"onnx", "iris"} <= node.kinds
        assert node.freshness_policy == dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=24))
        assert node.partitions_def == dg.DynamicPartitionsDefinition(name="reviews")
    assert ours[0].parent_keys == {dg.AssetKey(["shop", "exported_reviews"])}
    assert [node.automation_condition is not None for node in ours] == [True, True, True]
    assert job.executor_def is dg.in_process_executor
    intervals = {name: sensor.minimum_interval_seconds for name, sensor in sensors.items()}
    assert intervals == {
        "reviews_manifests": 5,
        "reviews_new_files": 30,
        "reviews_notifications": 30,
        "reviews_model": 90,
    }
    assert "*.csv" in sensors["reviews_new_files"].description


def test_templates_of_dagster_are_filled_in_and_ours_are_left(monkeypatch):
    monkeypatch.setenv("MODEL", "iris")
    with sandbox_with(*FILES) as sandbox, sandbox.build_component_tree() as tree:
        component = tree.load_component("any_folder")
    assert component.service == {
        "model": "iris",
        "output_path": "s3://bucket/reviews/{name}/",
        "node_count": 2,
        "description": "of {stem}, by {time}",
        "if_changed": "overwrite",
        "csv": {"missing": "nan"},
    }


def test_a_schedule_and_the_folder_as_name():
    with project(RATINGS, UPSTREAM) as definitions:
        (schedule,) = definitions.schedules or ()
        node = definitions.resolve_asset_graph().get(dg.AssetKey(["ratings", "output_manifest"]))
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 6 * * *", "Europe/Berlin")
    assert schedule.job_name == "deploy_ratings"
    assert node.partitions_def == dg.StaticPartitionsDefinition(["ratings"])


def test_an_eager_service_follows_its_upstream():
    with project(RATINGS, UPSTREAM) as definitions, dg.DagsterInstance.ephemeral() as instance:
        first = dg.evaluate_automation_conditions(definitions, instance=instance)
        instance.report_runless_asset_event(dg.AssetMaterialization(["shop", "exported_reviews"]))
        second = dg.evaluate_automation_conditions(definitions, instance=instance, cursor=first.cursor)
        requested = [second.get_requested_partitions(dg.AssetKey(["ratings", asset])) for asset in ASSETS]
    assert first.total_requested == 0
    assert requested == [{"ratings"}] * len(ASSETS)


def test_several_declarations_and_the_registry_stand_beside_each_other():
    named = FIXED.replace("attributes:", "attributes:\n  name: others").replace("/ratings/", "/others/")
    files = {"ratings": f"{FIXED}---{named}", "scans": FIXED, "models": "type: batch_pipeline.ModelRegistry\n"}
    with project(*((f"{name}/defs.yaml", text) for name, text in files.items())) as definitions:
        found = keys(definitions)
        jobs = {job.name for job in definitions.resolve_all_job_defs()}
        sensors = {sensor.name for sensor in definitions.sensors or ()}
    assert {f"{name}/{asset}" for name in ("ratings", "others", "scans") for asset in ASSETS} < found
    assert {"deploy_ratings", "deploy_others", "deploy_scans"} < jobs
    assert len(sensors) == 1


@pytest.mark.parametrize(
    ("added", "line", "key", "what"),
    [
        ("    node_cuont: 3", 9, "service.node_cuont", "Extra inputs are not permitted"),
        ("  grup: shop", 9, "grup", "Extra inputs are not permitted"),
        ("    csv: 3", 9, "service.csv", "should be an object"),
        ("    node_count: many", 9, "service.node_count", "must be an integer of 1 or more"),
        ("    description: 'of {nmae}'", 9, "service.description", "{nmae} that is no placeholder"),
        ("    description: 'of {{ name }}'", 9, "service.description", "'name' is undefined"),
        ("  name: a-b", 9, "name", "a letter is expected, and up to 39 letters, digits and _"),
        ("  name: batch_service", 9, "name", "which something else is called"),
        ("  name: model_version", 9, "name", "which something else is called"),
        ("  name: validate_models", 9, "name", "which something else is called"),
        ("  name: deploy_ratings", 9, "name", "which something else is called"),
        ("  key_prefix: shop//data", 9, "key_prefix", "a part that is empty"),
        ("  key_prefix: shop/", 9, "key_prefix", "a part that is empty"),
        ("  key_prefix: [shop, '']", 9, "key_prefix", "a part that is empty"),
        ("  deps: shop/reviews", 9, "deps", "type=list_type"),
        ("  automation_condition: eager", 9, "automation_condition", "should match pattern"),
        ("  group_name: a b", 4, "", '"a b" is not a valid asset group name'),
        ("  triggers:\n    - timer: {}", 10, "triggers.0.timer", "Extra inputs are not permitted"),
        ("  triggers:\n    - schedule: {crom: 0 6 * * *}", 10, "triggers.0.schedule.cron", "Field required"),
        ("  triggers:\n    - schedule: {cron: daily}", 10, "triggers.0.cron", "'daily' is no cron schedule"),
        ("  triggers:\n    - {}", 10, "triggers.0", "must have exactly one of the keys manifests, new_files"),
        ("  triggers:\n    - {model: {}, schedule: {cron: '@daily'}}", 10, "triggers.0", "has model and schedule"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_key(added, line, key, what):
    message = refusal(f"{FIXED}{added}\n")
    assert f"/ratings/defs.yaml:{line}" in message
    assert key in message
    assert what in message


def test_all_mistakes_with_parameters_are_told_at_once():
    message = refusal(FIXED.replace("s3://bucket/in/", "in").replace("iris", "a b"))
    assert "/defs.yaml:6: service.model: " in message
    assert "/defs.yaml:7: service.input_path: " in message


def test_a_template_of_another_kind_of_object_is_refused():
    message = refusal(f'{FIXED}  automation_condition: "{{{{ dg.AutomationCondition }}}}"\n')
    assert "automation_condition" in message
    assert "{{ dg.AutomationCondition.eager() }}" in message


def test_what_is_scaffolded_loads_as_it_is_written():
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.scaffold_component(BatchService, "reviews", scaffold_params={"model": "iris:1.0.0"})
        text = (folder / "defs.yaml").read_text()
        with sandbox.load_component_and_build_defs(folder) as (component, definitions):
            found = keys(definitions)
    assert component.service["model"] == "iris:1.0.0"
    assert {f"reviews/{asset}" for asset in ASSETS} < found
    assert "# automation_condition:" in text


def test_what_is_scaffolded_as_a_comment_loads_once_it_is_none():
    with create_defs_folder_sandbox() as sandbox:
        output = {"output_path": "s3://my-bucket/results/{name}/"}
        folder = sandbox.scaffold_component(BatchService, "reviews", scaffold_params=output)
        written = (folder / "defs.yaml").read_text()
    text = re.sub(r"^( +)# (?=\w+:| +- )", r"\1", written, flags=re.MULTILINE)
    with project(("any/defs.yaml", text)) as definitions:
        node = definitions.resolve_asset_graph().get(dg.AssetKey(["shop", "reviews", "output_manifest"]))
        sensors = {sensor.name for sensor in definitions.sensors or ()}
        schedules = [schedule.name for schedule in definitions.schedules or ()]
    assert (list(node.owners), node.tags["domain"]) == (["team:data"], "shop")
    assert node.freshness_policy is not None
    assert node.automation_condition is not None
    assert sensors == {"reviews_manifests", "reviews_new_files", "reviews_notifications", "reviews_model"}
    assert schedules == ["reviews_schedule"]


def test_made_in_python():
    python = dedent("""
        import dagster as dg

        from batch_pipeline import BatchService


        @dg.component_instance
        def load(context: dg.ComponentLoadContext) -> BatchService:
            return BatchService(
                name="reviews",
                service={"model": "iris", "input_path": "s3://bucket/in/", "output_path": "s3://bucket/out/"},
                automation_condition=dg.AutomationCondition.eager(),
            )
    """)
    with project(("component.py", python)) as definitions:
        assert {f"reviews/{asset}" for asset in ASSETS} < keys(definitions)


def test_the_schema_describes_every_key():
    schema = BatchService.get_model_cls().model_json_schema()
    shown = [schema, *(schema["$defs"][name] for name in ("ServiceTemplateModel", "TriggerModel", "NewFilesModel"))]
    keys = {key: said for each in shown for key, said in each["properties"].items()}
    # Where a key and its model are described alike, the model alone is.
    models = {key: schema["$defs"].get(said.get("$ref", "").rpartition("/")[2], {}) for key, said in keys.items()}
    assert [key for key, said in keys.items() if not said.get("description", models[key].get("description"))] == []
    assert set(shown[1]["properties"]) == set(ServiceParameters.model_fields) - {"name"}
