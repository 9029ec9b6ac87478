"""A store that stops in the midst of a body, or goes on with a byte now and then: an error of the input, no hang."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from batch_pipeline.errors import InputFailed
from batch_pipeline.locations import Location
from batch_pipeline.node.job import Unit
from batch_pipeline.node.reading import Sources
from batch_pipeline.storage import Storage, connection
from batch_pipeline.storage.timeouts import Timeouts
from batch_pipeline_tests.conftest import S3Server, use_server

SIZE = 1000


@contextmanager
def store(pause: float) -> Iterator[str]:
    """The address of a store whose answers have one byte of their body after each pause, and never end."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(206)
            for name, value in (
                ("Content-Length", str(SIZE)),
                ("Content-Range", f"bytes 0-{SIZE - 1}/{SIZE}"),
                ("ETag", '"etag"'),
                ("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT"),
            ):
                self.send_header(name, value)
            self.end_headers()
            try:
                while not over.wait(pause):
                    self.wfile.write(b"x")
                    self.wfile.flush()
            except OSError:
                pass

        def do_HEAD(self) -> None:
            """No result is there yet; a store that did not say so would be down, which is no fault of the input."""
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("key", "pause"), [("plain", 600), ("plain", 0.1), ("odd//key", 600)])
def test_it_ends_as_an_error_of_the_input(key, pause, monkeypatch):
    monkeypatch.setattr(connection, "_REQUEST_SECONDS", 2)
    with store(pause) as address:
        use_server(S3Server("slow", address), monkeypatch)
        source = Location("bucket", key)
        sources = Sources(Storage(timeouts=Timeouts(read_seconds=1, attempts=2)), None)  # type: ignore[arg-type]
        unit = Unit(0, "", source, source)
        with pytest.raises(InputFailed) as failed, sources.open(unit) as opened:
            b"".join(opened.chunks)
    assert failed.value.code == "read_failed"
