"""What the demonstration prints of a finished service, all of it read back from storage."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from rich.console import Console
from rich.tree import Tree

from batch_pipeline import service
from batch_pipeline.demo.s3_server import DemoFailed
from batch_pipeline.demo.seed import DemoService
from batch_pipeline.deployment import Deployment
from batch_pipeline.layout import OutputLayout
from batch_pipeline.locations import Location, parse_location
from batch_pipeline.parameters import ServiceParameters, parse_parameters
from batch_pipeline.results import load_results

SHOWN = 4
"""How many objects of a folder, lines of a manifest and answers are shown."""
ENOUGH = 0.9
"""Less than this share of right answers is a broken demonstration."""


def report(demo: DemoService, deployment: Deployment) -> None:
    """Print mapping, output folder, manifests, first answers and their accuracy. Raises `DemoFailed` if it is poor."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    parameters = parse_parameters(demo.parameters, settings=deployment.settings)
    sections: dict[str, Iterable[str | Tree]] = {
        "mapping": _mapping(parameters, deployment),
        "output": [_tree(parameters.output, deployment)],
        "manifests": _manifests(parameters, deployment),
        "first answers": _first_answers(parameters, deployment),
        "accuracy": [_accuracy(demo, parameters, deployment)],
    }
    console.rule(f"{parameters.name}: {parameters.description}", characters="─")
    for title, lines in sections.items():
        console.print(title, style="bold")
        for line in lines:
            console.print("  ", line, sep="") if isinstance(line, str) else console.print(line)
        console.print()


def _mapping(parameters: ServiceParameters, deployment: Deployment) -> list[str]:
    rule = service.map_columns(parameters, deployment).rule
    if rule is None:
        return ["none: each file is one request"]
    return [f"column {leaf['index']} → {path} ({leaf['type']})" for path, leaf in _leaves(rule, "")]


def _leaves(rule: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if rule["type"] == "object":
        for name, inner in rule["properties"].items():
            yield from _leaves(inner, f"{path}.{name}" if path else name)
    elif rule["type"] == "array":
        items = rule["items"]
        yield from _leaves(items[0] if isinstance(items, list) else items, f"{path}[0]")
    else:
        yield path, rule


def _tree(output: Location, deployment: Deployment) -> Tree:
    folders: dict[str, list[str]] = defaultdict(list)
    for found in deployment.storage.list(output):
        folder, _, name = found.location.key.removeprefix(output.key).rpartition("/")
        folders["_batch" if folder.startswith("_batch") else folder].append(f"{name}  ({found.size:,} bytes)")
    tree = Tree(output.uri)
    for folder, names in sorted(folders.items(), key=lambda item: (item[0] == "_batch", item[0])):
        if folder == "_batch":
            tree.add(f"_batch/  ({len(names)} objects, the service's own records)")
            continue
        branch = tree.add(f"{folder}/") if folder else tree
        for name in names[:SHOWN]:
            branch.add(name)
        if len(names) > SHOWN:
            branch.add(f"… and {len(names) - SHOWN} more")
    return tree


def _manifests(parameters: ServiceParameters, deployment: Deployment) -> Iterator[str]:
    for node in range(parameters.node_count):
        manifest = OutputLayout(parameters.output).result_manifest(node)
        lines = _lines(manifest, deployment)
        yield f"{manifest.name}: {len(lines)} line{'' if len(lines) == 1 else 's'}"
        yield from (f"  {line}" for line in lines[:SHOWN])
        if len(lines) > SHOWN:
            yield "  …"


def _first_answers(parameters: ServiceParameters, deployment: Deployment) -> Iterator[str]:
    for line in _lines(OutputLayout(parameters.output).result_manifest(0), deployment)[:SHOWN]:
        record = json.loads(line)
        source = parse_location(record["source"])
        asked = _lines(source, deployment) if source.name.endswith(".csv") else [source.name]
        answers = _lines(parse_location(record["inference-loc"]), deployment)
        yield from (f"{question} → {answer}" for question, answer in islice(zip(asked, answers, strict=True), SHOWN))


def _accuracy(demo: DemoService, parameters: ServiceParameters, deployment: Deployment) -> str:
    results = load_results(parameters.output, deployment.storage, node_count=parameters.node_count)
    answers: dict[str, list[str]] = defaultdict(list)
    for source, answer in zip(results["source"], results[demo.answer], strict=True):
        answers[source].append(answer)
    right = sum(_right(answers[source], known) for source, known in demo.known.items())
    total = sum(len(known) for known in demo.known.values())
    if len(results) != total or right < ENOUGH * total:
        raise DemoFailed(f"{parameters.name}: {right} of {total} answers are right, in {len(results)} results")
    return f"{right:,} of {total:,} answers are right ({right / total:.1%})"


def _right(answers: Sequence[str], known: Sequence[str]) -> int:
    return sum(answer == truth for answer, truth in zip(answers, known, strict=True))


def _lines(location: Location, deployment: Deployment) -> list[str]:
    return deployment.storage.read(location).decode().splitlines()
