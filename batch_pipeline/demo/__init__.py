"""The demonstration: two services on an S3 server of its own, with models trained on the spot."""

from __future__ import annotations


def run() -> int:
    """Run both services, print what they did, leave nothing behind. Returns the exit status."""
    from batch_pipeline.demo.show import run as show

    return show()


def dev(port: int = 3000) -> int:
    """Keep a seeded S3 server and the Dagster UI up on `port` until Ctrl-C or SIGTERM. Returns the exit status."""
    from batch_pipeline.demo.serve import serve

    return serve(port)
