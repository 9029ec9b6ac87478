"""What a service would do, shown without deploying: the mapping, and the first requests and their answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from batch_pipeline import checking, environment
from batch_pipeline.errors import InputFailed, ObjectNotFound, OutputRefused, ServiceChanged, ServiceLocked
from batch_pipeline.locations import ShareLink, Source
from batch_pipeline.node.job import NodeJob

if TYPE_CHECKING:
    from batch_pipeline.deployment import Deployment
    from batch_pipeline.inputs import Input
    from batch_pipeline.models.registry import ModelVersion
    from batch_pipeline.parameters import ServiceParameters

BEGINNING = 1024 * 1024
"""So many bytes of a CSV are looked at."""
MOST_INPUTS = 20
"""So many inputs are looked at while there are not enough rows yet."""


@dataclass(frozen=True)
class PreviewedInput:
    """One input: its first `{"request", "answer"}` pairs (`{"answer"}` for a file), or why it has none.

    A share link stands without its signature.
    """

    source: str
    pairs: tuple[dict[str, object], ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Preview:
    """What the service would do. `rule` is None for a model that takes files."""

    model: str
    request_path: str
    rule: dict[str, Any] | None
    inputs: tuple[PreviewedInput, ...]
    refusal: str | None = None
    """Why the service, for its output folder, would be refused as things are."""


def preview(parameters: ServiceParameters, deployment: Deployment, *, rows: int = 3) -> Preview:
    """Look at the first `rows` rows (files, for a file API) on this machine's CPU. Writes nothing to storage.

    Raises `Refused` for whatever is wrong but the output folder, and `NodeFailed` where the model does not work.
    """
    refusal = _refusal(parameters, deployment)
    model = deployment.registry.resolve(parameters.model)
    job = _job(parameters, model, deployment)
    rule = job.mapping.rule() if job.mapping is not None else None
    with environment.applied(parameters.environment):
        inputs = tuple(_previewed(checking.input_list(parameters, deployment).read(), job, deployment, rows))
    return Preview(model.ref, parameters.request_path, rule, inputs, refusal)


def _refusal(parameters: ServiceParameters, deployment: Deployment) -> str | None:
    try:
        checking.check(parameters, deployment)
    except (OutputRefused, ServiceChanged, ServiceLocked) as error:
        return error.message
    return None


def _job(parameters: ServiceParameters, model: ModelVersion, deployment: Deployment) -> NodeJob:
    from batch_pipeline.models.mapping import parse

    binding = model.bind(parameters.request_path)
    mapping = None
    if binding.kind == "json":
        schema = model.request_schema(parameters.request_path)
        mapping = parse(parameters.mapping, schema, header=parameters.csv.header)
    return NodeJob(
        units=(),
        unit_count=0,
        model_folder=deployment.registry.fetch(model),
        model_file=model.model_file,
        binding=binding,
        mapping=mapping,
        csv=parameters.csv,
        join_input=parameters.join_input,
        threads=deployment.node_specs[parameters.node_spec].cpu,
        batch_seconds=deployment.settings.batch_seconds,
    )


def _previewed(inputs: Iterator[Input], job: NodeJob, deployment: Deployment, rows: int) -> Iterator[PreviewedInput]:
    for each in islice(inputs, MOST_INPUTS):
        one = _one(each, job, deployment, rows)
        rows -= len(one.pairs)
        yield one
        if rows <= 0:
            return


def _one(each: Input, job: NodeJob, deployment: Deployment, rows: int) -> PreviewedInput:
    if each.source is None:
        return PreviewedInput(f"line {each.line}", error=each.error.message if each.error else "no source")
    shown = each.source.identity if isinstance(each.source, ShareLink) else each.source.uri
    try:
        return PreviewedInput(shown, _pairs(each.source, each.name, job, deployment, rows))
    except InputFailed as error:
        return PreviewedInput(shown, error=f"{error.code}: {error.message}")
    except ObjectNotFound as error:
        return PreviewedInput(shown, error=f"not_found: {error.message}")


def _pairs(source: Source, name: str, job: NodeJob, deployment: Deployment, rows: int) -> tuple[dict[str, object], ...]:
    from batch_pipeline.node.preview import preview_csv, preview_file

    if job.binding.kind == "file":
        return tuple(preview_file(job, _read(source, deployment, None)))
    if not name.lower().endswith(".csv"):
        raise InputFailed("not_csv", "the model takes JSON, so an input must be a .csv file")
    return tuple(preview_csv(job, _read(source, deployment, BEGINNING), rows))


def _read(source: Source, deployment: Deployment, most: int | None) -> bytes:
    """The object, or its beginning up to a line end where it is longer than `most` bytes."""
    chunks, size = [], 0
    reader = deployment.share_links.open(source) if isinstance(source, ShareLink) else deployment.storage.open(source)
    with reader as stream:
        for chunk in stream:
            chunks.append(bytes(chunk))
            size += len(chunk)
            if most is not None and size > most:
                data = b"".join(chunks)[:most]
                return data[: data.rfind(b"\n") + 1] or data
    return b"".join(chunks)
