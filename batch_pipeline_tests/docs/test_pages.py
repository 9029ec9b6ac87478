"""What README and docs say is so: links lead somewhere, commands and settings exist, samples are accepted."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
import yaml

from batch_pipeline.node_specs import BUILT_IN, load_node_specs
from batch_pipeline.parameters import ServiceParameters, parse_parameters
from batch_pipeline.settings import Settings
from batch_pipeline_tests.docs.blocks import PAGES, ROOT, blocks, commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_readme_names_only_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z]+)", "".join(page.read_text(encoding="utf-8") for page in PAGES)))
    assert named <= targets | {"and"}


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_exist(page: str, line: str) -> None:
    """Each command of the docs is there, with each option that is shown."""
    from batch_pipeline.cli import cli

    command: click.Command = cli
    words = shlex.split(line.replace("[", "").replace("]", ""))[1:]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None, f"{page}: {line}"
        command = found
    options = {name for parameter in command.params for name in (*parameter.opts, "--help")}
    assert {word for word in words if word.startswith("--")} <= options


def test_parameters_page_has_every_key() -> None:
    page = (ROOT / "docs/parameters.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(ServiceParameters.model_fields)


def test_deployment_page_has_every_setting() -> None:
    page = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
    code = (ROOT / "batch_pipeline/settings.py").read_text(encoding="utf-8")
    read = {"BATCH_PIPELINE_" + name for name in re.findall(r'reader\.read\("(\w+)"', code)}
    shown = set(re.findall(r"^\| `(BATCH_PIPELINE_\w+)`", page, re.MULTILINE))
    assert shown == read | {"BATCH_PIPELINE_LAUNCHPAD_CONFIG"}


def test_deployment_page_has_every_node_spec() -> None:
    page = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
    table = page[page.index("## Node specs") : page.index("The file named by")]
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE) == [spec.id for spec in BUILT_IN]


def test_node_specs_sample_loads(tmp_path: Path) -> None:
    (sample,) = blocks("yaml", "deployment.md")
    file = tmp_path / "specs.yaml"
    file.write_text(sample.text, encoding="utf-8")
    assert load_node_specs(file)["gpu-8u32g-a10"].cpu == 8


@pytest.mark.parametrize("page", ["README.md", "parameters.md"])
def test_parameter_samples_are_accepted(page: str) -> None:
    for block in blocks("yaml", page):
        parse_parameters(yaml.safe_load(block.text), settings=Settings())


@pytest.mark.parametrize("name", ["iris", "digits"])
def test_examples_are_the_services_of_the_demonstration(name: str) -> None:
    from batch_pipeline.demo.seed import DIGITS, IRIS

    example = yaml.safe_load((ROOT / f"examples/{name}.yaml").read_text(encoding="utf-8"))
    assert example == {"iris": IRIS, "digits": DIGITS}[name]


def test_mapping_sample_makes_the_request_sample() -> None:
    from batch_pipeline.models.mapping import parse

    rule, request = (json.loads(block.text) for block in blocks("json", "parameters.md"))
    assert parse(rule, rule, header=False).request([5.1, 3.5, 1.4, 0.2]) == request


def test_cpu_and_gpu_are_exclusive() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    always = project["dependencies"] + project["optional-dependencies"]["test"]
    assert not [name for name in always if name.startswith("onnxruntime")]


def test_requirements_are_pinned_by_hash_and_name_no_address() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    assert all(
        re.fullmatch(r"[\w.-]+(\[[\w, ]+\])?==\S+( +--hash=sha256:[0-9a-f]{64})+", line.strip()) for line in lines
    )
