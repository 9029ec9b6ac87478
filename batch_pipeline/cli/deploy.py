"""`batch-pipeline deploy`: start a service from a parameter file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import click

from batch_pipeline.cli.files import file_argument, more_argument, read_body, set_option
from batch_pipeline.cli.output import json_option, print_json, say, warn
from batch_pipeline.cli.progress import live_progress

if TYPE_CHECKING:
    from batch_pipeline.orchestration.launching import Launched


@click.command()
@file_argument
@more_argument
@click.option("--name", help="The service's name; it wins over the file's.")
@set_option
@click.option("--wait", is_flag=True, help="Run the service here and wait for its end; no daemon is needed.")
@click.option("--overwrite", is_flag=True, help="If the service was run before with something else, start over.")
@json_option
def deploy(
    file: str,
    more: tuple[str, ...],
    name: str | None,
    settings: tuple[str, ...],
    wait: bool,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Deploy a service from a file of parameters.

    FILE is YAML or JSON; - is standard input. The run's id is printed.
    """
    from batch_pipeline.settings import Settings

    body = read_body(file, settings + more, name)
    warn(body.warnings)
    parameters = body.parse(Settings.from_environment())

    from batch_pipeline.node.allocator import keep_freed_memory

    keep_freed_memory()
    with ExitStack() as stack:
        if wait and parameters.node_count > 1:
            stack.enter_context(_node_processes())
        from batch_pipeline.orchestration.launching import launch

        on_progress = stack.enter_context(live_progress())
        launched = launch(parameters, wait=wait, overwrite=overwrite, on_progress=on_progress)
    report(launched, as_json=as_json)
    return exit_status(launched)


@contextmanager
def _node_processes() -> Iterator[None]:
    """The process that nodes are forked from: it imports what they need while this one imports Dagster."""
    from batch_pipeline.orchestration.fork_server import current_fork_server
    from batch_pipeline.orchestration.home import use_dagster_home

    use_dagster_home()
    with current_fork_server():
        yield


def report(launched: Launched, *, as_json: bool) -> None:
    """The run's id on standard output, and what became of the service on standard error."""
    if as_json:
        print_json(
            {
                "name": launched.service,
                "id": launched.run_id,
                "state": launched.state,
                "output_path": launched.output_path,
                "error": launched.message or None,
            }
        )
    else:
        click.echo(launched.run_id)
    if launched.state in ("failed", "stopped"):
        say(f"error: the service {launched.service} has {_ended(launched)}")
    elif launched.state == "finished":
        say(f"the service {launched.service} has finished: {launched.output_path}")
    else:
        say(f"the service {launched.service} is {launched.state}; see: batch-pipeline services show {launched.service}")


def exit_status(launched: Launched) -> int:
    if launched.state not in ("failed", "stopped"):
        return 0
    return 2 if launched.refused else 1


def _ended(launched: Launched) -> str:
    if launched.state == "stopped":
        return f"been stopped; to continue it: batch-pipeline services run {launched.service}"
    return f"failed: {launched.message}" if launched.message else "failed"
