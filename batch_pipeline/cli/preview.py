"""`batch-pipeline preview`: the mapping and the first answers, without deploying."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from batch_pipeline.cli.files import file_argument, more_argument, read_body, set_option
from batch_pipeline.cli.output import clean, json_option, print_json, warn

if TYPE_CHECKING:
    from batch_pipeline.previewing import Preview


@click.command()
@file_argument
@more_argument
@set_option
@click.option("--rows", type=click.IntRange(1, 1000), default=3, show_default=True, help="How many rows (or files).")
@json_option
def preview(file: str, more: tuple[str, ...], settings: tuple[str, ...], rows: int, as_json: bool) -> None:
    """Show the mapping and the first answers of a service.

    FILE is as for deploy. Nothing is deployed or written.
    """
    from batch_pipeline.deployment import Deployment

    body = read_body(file, settings + more)
    warn(body.warnings)
    deployment = Deployment.from_environment()
    parameters = body.parse(deployment.settings)

    from batch_pipeline.previewing import preview as look

    found = look(parameters, deployment, rows=rows)
    if as_json:
        print_json(asdict(found))
    else:
        _show(found)
    if found.refusal is not None:
        warn([f"deploy would be refused: {found.refusal}"])


def _show(found: Preview) -> None:
    click.echo(f"model    {clean(found.model)} at {clean(found.request_path)}")
    click.echo(f"mapping  {_json(found.rule) if found.rule is not None else '(none: the model takes files)'}")
    for each in found.inputs:
        click.echo(f"\n{clean(each.source)}")
        if each.error is not None:
            click.echo(f"  error    {clean(each.error)}")
        for pair in each.pairs:
            for name, value in pair.items():
                click.echo(f"  {name:<8} {_json(value)}")


def _json(value: object) -> str:
    return clean(json.dumps(value, ensure_ascii=False))
