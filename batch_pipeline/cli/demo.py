"""`batch-pipeline demo` and `dev`: see it work, with nothing but this package."""

from __future__ import annotations

import click


@click.command()
def demo() -> int:
    """Run two small services on an S3 server of their own."""
    from batch_pipeline import demo as demonstration

    return demonstration.run()


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the UI.")
def dev(port: int) -> int:
    """Start the Dagster UI with a seeded S3 server, until Ctrl-C."""
    from batch_pipeline import demo as demonstration

    return demonstration.dev(port)
