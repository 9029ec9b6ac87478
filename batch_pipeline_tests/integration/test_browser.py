"""The Dagster UI as a person uses it: launch a service, be told of a mistake, watch it finish, look at what it made.

`make pictures` keeps the screenshots of the documentation: it sets PICTURES to their folder.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from batch_pipeline.orchestration.names import JOB, LOCATION
from batch_pipeline_tests.demo.playground import playground, wait_until_up
from batch_pipeline_tests.demo.processes import left_behind, marked_environment

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CHROMIUM = shutil.which("chromium")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SECONDS = 1000
"""Milliseconds, in which Playwright counts."""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.server,
    pytest.mark.executor,
    pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="needs chromium"),
]


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A fresh playground: the address of its UI, and the variables that lead to its server."""
    home = tmp_path_factory.mktemp("dev")
    environment, mark = marked_environment()
    with playground(home, environment) as (process, port):
        wait_until_up(process, port)
        found = re.search(r"^ +export (.*)$", (home / "dev.log").read_text(), re.MULTILINE)
        assert found is not None
        yield f"http://127.0.0.1:{port}", dict(word.split("=", 1) for word in shlex.split(found[1]))
    assert left_behind(mark) == []


@pytest.fixture
def page(dev: tuple[str, dict[str, str]], tmp_path: Path) -> Iterator[Page]:
    """A browser's page on the playground's address."""
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path / "browser"),
            executable_path=CHROMIUM,
            args=QUIET,
            base_url=dev[0],
            viewport={"width": 1400, "height": 900},
        )
        context.set_default_timeout(60 * SECONDS)
        yield context.new_page()
        context.close()


def test_a_service_from_the_launchpad_to_its_answers(page: Page) -> None:
    _add_partition(page, "my-flowers")
    _open_launchpad(page, "my-flowers")
    config = page.evaluate("document.querySelector('.CodeMirror').CodeMirror.getValue()")

    _type(page, config.replace("node_count: 3", "node_count: 0"))
    page.get_by_role("button", name="Launch Run").click()
    expect(page.get_by_text("node_count: must be an integer of 1 or more, not 0")).to_be_visible()
    _keep(page, "mistake")

    _open_launchpad(page, "my-flowers")
    _type(page, config)
    expect(page.get_by_text("No errors")).to_be_visible()
    _keep(page, "launchpad")
    page.get_by_role("button", name="Launch Run").click()
    page.wait_for_url("**/runs/*")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible(timeout=180 * SECONDS)

    page.goto("/assets/inference_results?view=partitions&partition=my-flowers")
    expect(page.get_by_text("s3://demo/flowers-results/infer-result/").first).to_be_visible()
    expect(page.get_by_role("cell", name="sample", exact=True)).to_be_visible()
    expect(page.get_by_text("setosa").first).to_be_visible()
    expect(page.get_by_text("rows_per_second")).to_be_visible()
    _keep(page, "results")
    page.get_by_text("Show Markdown").first.click()
    expect(page.locator("img[src^='data:image/svg']").first).to_be_visible()
    _keep(page, "predictions")

    page.goto("/assets/inference_results?view=checks")
    for check in ("errors_within_threshold", "answers_match_schema", "predictions_stable", "no_empty_result"):
        expect(page.get_by_text(check, exact=True).first).to_be_visible()
    expect(page.get_by_text("Passed", exact=True).first).to_be_visible()
    _keep(page, "checks")

    page.goto(f"/locations/{LOCATION}/asset-groups/batch_service/lineage")
    for asset in ("input_data", "model", "input_manifest", "inference_results", "output_manifest"):
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()
    _keep(page, "lineage")


def test_a_manifest_in_the_inbox_becomes_a_service(page: Page, dev: tuple[str, dict[str, str]]) -> None:
    page.goto(f"/locations/{LOCATION}/sensors/flowers_manifests")
    page.locator("label:has(input[type=checkbox])").first.click()
    expect(page.get_by_text("Skipped", exact=False).or_(page.get_by_text("0 runs requested")).first).to_be_visible(
        timeout=120 * SECONDS
    )
    manifest = b'{"source": "s3://demo/flowers/one.csv"}\n'
    _s3(dev[1]).put_object(Bucket="demo", Key="inbox/monday.manifest", Body=manifest)
    expect(page.get_by_text("(1 partition created)")).to_be_visible(timeout=120 * SECONDS)
    _keep(page, "sensor")

    page.goto(f"/locations/{LOCATION}/jobs/deploy_flowers/runs")
    expect(page.get_by_text("monday-").first).to_be_visible()
    expect(page.get_by_text("Success", exact=True).first).to_be_visible(timeout=180 * SECONDS)
    results = _s3(dev[1]).list_objects_v2(Bucket="demo", Prefix="flowers-by-manifest/monday-")["Contents"]
    assert any(each["Key"].endswith("infer-result/one.csv_result.txt") for each in results)


def _s3(variables: dict[str, str]) -> S3Client:
    client: S3Client = boto3.Session(
        variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"], region_name=variables["AWS_REGION"]
    ).client("s3", endpoint_url=variables["AWS_ENDPOINT_URL_S3"])
    return client


def _add_partition(page: Page, name: str) -> None:
    """As a person names a new service in the UI."""
    page.goto(f"/locations/{LOCATION}/jobs/{JOB}")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_text("Add a partition").click()
    page.get_by_placeholder("name").last.fill(name)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="Launch 1 run")).to_be_visible()


def _open_launchpad(page: Page, service: str) -> None:
    """With the parameters that `dev` has made ready."""
    page.goto(f"/locations/{LOCATION}/jobs/{JOB}/playground")
    page.get_by_placeholder("Partition").click()
    page.get_by_text(service, exact=True).first.click()
    expect(page.get_by_text("s3://demo/flowers-results/")).to_be_visible()


def _type(page: Page, config: str) -> None:
    page.evaluate("text => document.querySelector('.CodeMirror').CodeMirror.setValue(text)", config)


def _keep(page: Page, name: str) -> None:
    """Look where a person would, and keep what is seen where that is wanted."""
    if folder := os.environ.get("PICTURES"):
        page.wait_for_timeout(2 * SECONDS)
        page.screenshot(path=Path(folder, f"{name}.png"))
