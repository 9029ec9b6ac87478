"""The page on declared services says what is so: its samples load, its tables are complete."""

from __future__ import annotations

import re

import dagster as dg
from dagster.components.testing import create_defs_folder_sandbox

from batch_pipeline import BatchService
from batch_pipeline.components.trigger_schema import TriggerModel
from batch_pipeline_tests.docs.blocks import ROOT, blocks

PAGE = (ROOT / "docs/declared-services.md").read_text(encoding="utf-8")


def test_samples_load_beside_each_other() -> None:
    with create_defs_folder_sandbox() as sandbox:
        for number, block in enumerate(blocks("yaml", "declared-services.md")):
            folder = sandbox.defs_folder_path / ("reviews" if number == 0 else f"other_{number}")
            folder.mkdir()
            (folder / "defs.yaml").write_text(block.text, encoding="utf-8")
        with sandbox.build_all_defs() as definitions:
            dg.Definitions.validate_loadable(definitions)
            found = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
    assert {"shop/reviews/output_manifest", "ratings/output_manifest", "batch_pipeline/model"} < found


def test_the_sample_of_the_page_on_triggers_loads() -> None:
    (sample,) = blocks("yaml", "triggers.md")
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.defs_folder_path / "nightly"
        folder.mkdir()
        (folder / "defs.yaml").write_text(sample.text, encoding="utf-8")
        with sandbox.build_all_defs() as definitions:
            repository = definitions.get_repository_def()
    assert [each.name for each in repository.schedule_defs] == ["nightly_schedule"]
    assert "nightly_model" in {each.name for each in repository.sensor_defs}


def test_every_attribute_is_told_of() -> None:
    table = PAGE[PAGE.index("## Attributes") : PAGE.index("## One service or many")]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(BatchService.model_fields)


def test_every_key_of_every_trigger_is_told_of() -> None:
    table = PAGE[PAGE.index("## Triggers") : PAGE.index("What each does")]
    rows = {kind: re.findall(r"`(\w+)`", keys) for kind, keys in re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.M)}
    rows["notifications"] = [*dict.fromkeys([*rows["notifications"][:-1], *rows["new_files"]])]
    schema = {kind: list(field.annotation.model_fields) for kind, field in TriggerModel.model_fields.items()}
    assert {kind: sorted(keys) for kind, keys in rows.items()} == {kind: sorted(keys) for kind, keys in schema.items()}
