"""The Python API: what the command line offers, as functions. `batch_pipeline` hands them out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch_pipeline import results
from batch_pipeline.deployment import Deployment
from batch_pipeline.errors import Refused, ServiceFailed
from batch_pipeline.locations import Location, parse_folder
from batch_pipeline.modelarts import read_body
from batch_pipeline.parameters import ServiceParameters
from batch_pipeline.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from batch_pipeline.node.job import Progress
    from batch_pipeline.orchestration.launching import Launched
    from batch_pipeline.orchestration.services import Service
    from batch_pipeline.previewing import Preview

Parameters = Mapping[str, Any] | ServiceParameters
"""Our flat object, or the original API's body."""


def deploy(
    parameters: Parameters,
    *,
    name: str | None = None,
    wait: bool = True,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Launched:
    """Deploy a service: with `wait` here, until its end; else on the instance's queue.

    Raises `Refused` (`InvalidParameters` and others) for what is refused, `ServiceFailed` for a service that was waited
    for and failed or was stopped.
    """
    changes: dict[str, Any] = {"name": name} if name is not None else {}
    parsed = _parsed(parameters, Settings.from_environment(), changes)

    from batch_pipeline.orchestration.launching import launch

    return _successful(launch(parsed, wait=wait, overwrite=overwrite, on_progress=on_progress))


def preview(parameters: Parameters, *, rows: int = 3) -> Preview:
    """What the service would do: mapping, first requests, their answers. Raises `Refused`, `NodeFailed`."""
    from batch_pipeline.previewing import preview as look

    deployment = Deployment.from_environment()
    return look(_parsed(parameters, deployment.settings, {}), deployment, rows=rows)


def load_results(service: str, *, head: int | None = None) -> pd.DataFrame:
    """The results of a service, by its name or its output folder, as a table; at most `head` rows.

    The columns are `source`, `row` (from 0, in its file), the leaves of the answers by dotted path, and `error`
    (`code: message`). Raises `ServiceNotFound`, and `Refused` where there are no (complete) results.
    """
    deployment = Deployment.from_environment()
    output, node_count = _output(service, deployment)
    return results.load_results(output, deployment.storage, node_count=node_count, head=head)


def export_results(service: str, target: str | Path, *, head: int | None = None) -> int:
    """Write the table of `load_results` to a `.parquet` or `.csv` file without holding it whole; returns its rows."""
    results.check_target(Path(target))
    deployment = Deployment.from_environment()
    output, node_count = _output(service, deployment)
    return results.export_results(output, deployment.storage, Path(target), node_count=node_count, head=head)


def list_services(*, search: str = "") -> list[Service]:
    """The services whose name contains `search`, newest first."""
    from batch_pipeline.orchestration import instance, services

    with instance.open_instance() as ours:
        return services.list_services(ours, search=search)


def show_service(name: str) -> Service:
    """One service, with its parameters and its error. Raises `ServiceNotFound`."""
    from batch_pipeline.orchestration import instance, services

    with instance.open_instance() as ours:
        return services.show_service(ours, name)


def run_service(name: str, *, wait: bool = True, overwrite: bool = False) -> Launched:
    """Run a service again with its recorded parameters; raises as `deploy` does."""
    from batch_pipeline.orchestration import instance, services

    with instance.open_instance(quiet=wait) as ours:
        return _successful(services.run_service(ours, name, wait=wait, overwrite=overwrite))


def stop_service(name: str) -> None:
    """Ask a service that is deploying or running to stop. Raises `Refused` where nothing runs."""
    from batch_pipeline.orchestration import instance, services

    with instance.open_instance() as ours:
        services.stop_service(ours, name)


def describe_service(name: str, description: str) -> None:
    """Change the description. Raises `ServiceBusy`, `InvalidParameters`."""
    from batch_pipeline.orchestration import instance, services

    with instance.open_instance() as ours:
        services.describe_service(ours, name, description)


def delete_service(name: str, *, results: bool = False) -> int:
    """Delete the record of a service, with `results` its own objects too; returns how many.

    Raises `ServiceBusy`, and with `results` `ServiceLocked` or `OutputRefused` where somebody works on them elsewhere.
    """
    from batch_pipeline.orchestration import instance, services

    with instance.open_instance() as ours:
        return services.delete_service(ours, name, results=results)


def _parsed(parameters: Parameters, settings: Settings, changes: Mapping[str, Any]) -> ServiceParameters:
    data = parameters.to_config() if isinstance(parameters, ServiceParameters) else parameters
    body = read_body(data)
    body.parameters.update(changes)
    for text in body.warnings:
        warnings.warn(text, stacklevel=3)
    return body.parse(settings)


def _successful(launched: Launched) -> Launched:
    if launched.state == "failed":
        refused = Refused if launched.refused else ServiceFailed
        raise refused(launched.message or f"the service {launched.service} failed (run {launched.run_id})")
    if launched.state == "stopped":
        raise ServiceFailed(f"the service {launched.service} was stopped (run {launched.run_id})")
    return launched


def _output(service: str, deployment: Deployment) -> tuple[Location, int | None]:
    """The output folder and, for a service known by name, how many nodes' manifests it must hold."""
    if "://" in service or service.startswith("/"):
        return parse_folder(service, allow_local=deployment.settings.allow_local_files), None

    from batch_pipeline.orchestration import instance, services

    with instance.open_instance() as ours:
        recorded = services.recorded_parameters(ours, service)
    return recorded.output, recorded.node_count
