"""The Dagster UI as a person uses it: launch a service, be told of a mistake, watch it finish, look at what it made.

`make pictures` keeps the screenshots of the documentation: it sets PICTURES to their folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from batch_pipeline.orchestration.names import JOB, LOCATION
from batch_pipeline_tests.demo.playground import playground, wait_until_up
from batch_pipeline_tests.demo.processes import left_behind, marked_environment

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


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A browser's page on the address of a fresh playground."""
    environment, mark = marked_environment()
    with playground(tmp_path, environment) as (process, port), sync_playwright() as playwright:
        wait_until_up(process, port)
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path / "browser"),
            executable_path=CHROMIUM,
            args=QUIET,
            base_url=f"http://127.0.0.1:{port}",
            viewport={"width": 1400, "height": 900},
        )
        context.set_default_timeout(60 * SECONDS)
        yield context.new_page()
        context.close()
    assert left_behind(mark) == []


def test_a_service_from_the_launchpad_to_its_answers(page: Page) -> None:
    _open_launchpad(page)
    config = page.evaluate("document.querySelector('.CodeMirror').CodeMirror.getValue()")

    _type(page, config.replace("node_count: 3", "node_count: 0"))
    page.get_by_role("button", name="Launch Run").click()
    expect(page.get_by_text("node_count: must be an integer of 1 or more, not 0")).to_be_visible()
    _keep(page, "mistake")

    _open_launchpad(page)
    _type(page, config)
    expect(page.get_by_text("No errors")).to_be_visible()
    _keep(page, "launchpad")
    page.get_by_role("button", name="Launch Run").click()
    page.wait_for_url("**/runs/*")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible(timeout=180 * SECONDS)

    page.goto("/assets/inference_results")
    expect(page.get_by_text("s3://demo/flowers-results/infer-result/").first).to_be_visible()
    expect(page.get_by_role("cell", name="sample", exact=True)).to_be_visible()
    expect(page.get_by_text("setosa").first).to_be_visible()
    expect(page.get_by_text("rows_per_second")).to_be_visible()
    _keep(page, "results")

    page.goto("/asset-groups")
    for asset in ("input_data", "model", "input_manifest", "inference_results", "output_manifest"):
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()
    _keep(page, "lineage")


def _open_launchpad(page: Page) -> None:
    """With the service that `dev` has made ready, and its own parameters."""
    page.goto(f"/locations/{LOCATION}/jobs/{JOB}/playground")
    page.get_by_placeholder("Partition").click()
    page.get_by_text("iris-demo", exact=True).first.click()
    expect(page.get_by_text("s3://demo/flowers-results/")).to_be_visible()


def _type(page: Page, config: str) -> None:
    page.evaluate("text => document.querySelector('.CodeMirror').CodeMirror.setValue(text)", config)


def _keep(page: Page, name: str) -> None:
    """Look where a person would, and keep what is seen where that is wanted."""
    if folder := os.environ.get("PICTURES"):
        page.wait_for_timeout(2 * SECONDS)
        page.screenshot(path=Path(folder, f"{name}.png"))
