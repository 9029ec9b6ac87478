"""`batch-pipeline demo`: deploy both services as `deploy --wait` does, one after the other, and show what they did."""

from __future__ import annotations

import click

from batch_pipeline.cli.progress import live_progress
from batch_pipeline.demo.environment import playground
from batch_pipeline.demo.report import report
from batch_pipeline.demo.seed import DemoService, seed
from batch_pipeline.deployment import Deployment
from batch_pipeline.parameters import parse_parameters


def run() -> int:
    """0 when both services finished; 1 when one failed or was stopped. Raises `DemoFailed` for poor answers."""
    with playground():
        deployment = Deployment.from_environment()
        click.echo("training two models, uploading them and their inputs to an S3 server of our own …", err=True)
        for demo in seed(deployment):
            if not _deploy(demo, deployment):
                return 1
            report(demo, deployment)
    return 0


def _deploy(demo: DemoService, deployment: Deployment) -> bool:
    from batch_pipeline.orchestration.launching import launch

    click.echo(f"deploying {demo.parameters['name']}: {demo.parameters['description']} …", err=True)
    parameters = parse_parameters(demo.parameters, settings=deployment.settings)
    with live_progress() as on_progress:
        launched = launch(parameters, wait=True, on_progress=on_progress)
    if launched.state != "finished":
        click.echo(f"{launched.service} {launched.state}: {launched.message}", err=True)
    return launched.state == "finished"
