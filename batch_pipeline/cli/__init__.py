"""The command line `batch-pipeline`. Heavy modules are imported inside the commands, so that `--help` is quick."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from batch_pipeline.cli.demo import demo, dev
from batch_pipeline.cli.deploy import deploy
from batch_pipeline.cli.edge import Edge
from batch_pipeline.cli.models import models
from batch_pipeline.cli.preview import preview
from batch_pipeline.cli.results import results
from batch_pipeline.cli.services import services

_OBJECTS = 1_000_000


@click.group(cls=Edge, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="batch-pipeline", prog_name="batch-pipeline")
def cli(debug: bool) -> None:
    """Deploy a model over a folder or manifest of objects in a bucket, on N compute nodes, then stop.

    Data goes to standard output, progress and messages to standard error. The exit status is 0 for success, 1 for
    a service that failed or was stopped, and 2 for anything refused before the service starts.
    """


for command in (demo, dev, deploy, preview, services, models, results):
    cli.add_command(command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; every error has become one line on standard error."""
    try:
        status = cli.main(arguments, prog_name="batch-pipeline", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    return status if isinstance(status, int) else 0


def main() -> NoReturn:
    """The console script."""
    # What is imported is many objects and no garbage: to look for some takes a sixth of a short command's time.
    # A node's rows are few objects, however many rows.
    gc.set_threshold(_OBJECTS)
    status = run()
    # Python's own end would look for some, twice.
    gc.freeze()
    sys.exit(status)
