"""`batch-pipeline models`: what the registry holds, and pushing a package into it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batch_pipeline.cli.output import json_option, print_fields, print_json, print_table, say

if TYPE_CHECKING:
    from batch_pipeline.models.registry import ModelVersion, Registry


@click.group()
def models() -> None:
    """List, show and push model packages."""


@models.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List every model version with its status."""
    found = _registry().models()
    if as_json:
        print_json([_summary(version) for version in found])
        return
    columns = ("MODEL", "VERSION", "STATUS", "ALGORITHM", "SIZE", "REASON")
    rows = [
        (version.name, version.version, version.status, _algorithm(version), version.size, "; ".join(version.reasons))
        for version in found
    ]
    print_table(columns, rows, right=("SIZE",))


@models.command("show")
@click.argument("ref", metavar="NAME[:VERSION]")
@json_option
def show_model(ref: str, as_json: bool) -> None:
    """Show one model version: status, reasons, digests and APIs."""
    fields = _details(_registry().show(ref))
    if as_json:
        print_json(fields)
    else:
        print_fields(fields)


@models.command("push")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("ref", metavar="NAME:VERSION")
@click.option("--force", is_flag=True, help="Replace the version if it exists.")
@json_option
def push_model(folder: Path, ref: str, force: bool, as_json: bool) -> None:
    """Upload the package in DIR as a new version."""
    version = _registry().push(folder, ref, force=force)
    if as_json:
        print_json(_details(version))
    else:
        say(f"pushed {version.ref} to {version.location}")
    if version.status != "normal":
        say(f"warning: its status is {version.status}: {'; '.join(version.reasons)}")


def _registry() -> Registry:
    from batch_pipeline.deployment import Deployment

    return Deployment.from_environment().registry


def _algorithm(version: ModelVersion) -> str | None:
    return version.config.model_algorithm if version.config else None


def _summary(version: ModelVersion) -> dict[str, Any]:
    return {
        "model": version.ref,
        "name": version.name,
        "version": version.version,
        "status": version.status,
        "reasons": list(version.reasons),
        "algorithm": _algorithm(version),
        "size": version.size,
        "sha256": version.sha256,
    }


def _details(version: ModelVersion) -> dict[str, Any]:
    apis = [
        {"url": api.url, "protocol": api.protocol, "method": api.method, "kind": api.kind}
        for api in (version.config.apis if version.config else ())
    ]
    return {
        **_summary(version),
        "digest": version.digest,
        "location": version.location.uri,
        "metrics": version.config.metrics if version.config else None,
        "apis": apis,
        "files": {name: info.size for name, info in version.files.items()},
    }
