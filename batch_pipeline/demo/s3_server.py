"""The demonstration's S3 server: moto in a process of its own, on a free loopback port, in memory.

The child serves until its standard input ends. So it stops with its parent however that ends, even when killed.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from batch_pipeline.errors import BatchPipelineError


class DemoFailed(BatchPipelineError):
    """The demonstration could not run: its server did not start, or an answer was not as it should be."""


@contextmanager
def s3_server() -> Iterator[str]:
    """A running server; gives its endpoint, `http://127.0.0.1:PORT`. Raises `DemoFailed` where it does not start."""
    command = [sys.executable, "-m", __name__]
    # A session of its own: Ctrl-C reaches the parent alone, which still needs the server to end what it began.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            endpoint = process.stdout.readline().strip()
            if not endpoint:
                raise DemoFailed(
                    "the S3 server did not start: install the extra `demo` (pip install batch-pipeline[demo])"
                )
            yield endpoint
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()


def _serve() -> None:
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    sys.stdout.write(f"http://{host}:{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    _serve()
