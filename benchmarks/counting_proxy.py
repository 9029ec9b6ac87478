"""An HTTP proxy on loopback before an S3 server, which counts requests and the bytes of their bodies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar
from urllib.parse import unquote, urlsplit

_OF_ONE_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclass(frozen=True)
class Request:
    """One request as it went over the wire."""

    method: str
    path: str
    """`/bucket/key`, decoded."""
    query: str
    sent: int
    """Bytes of its body."""
    received: int
    """Bytes of the answer's body."""


class CountingServer(ThreadingHTTPServer):
    """Passes everything on, as it is, and keeps a record of it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: str, handler: type[Handler] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler or Handler)
        self.upstream = urlsplit(upstream).netloc
        self.requests: list[Request] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


Proxy = TypeVar("Proxy", bound=CountingServer)


class Handler(BaseHTTPRequestHandler):
    """One connection of the client, and one to the server that goes with it."""

    protocol_version = "HTTP/1.1"
    server: CountingServer
    # Headers and body are two writes, and the second must not wait until the first is acknowledged.
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self._upstream = HTTPConnection(self.server.upstream)

    def finish(self) -> None:
        self._upstream.close()
        super().finish()

    def do_GET(self) -> None:
        self.pass_on(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET  # noqa: N815  as http.server looks for them

    def pass_on(self, body: bytes) -> None:
        """Asks the server behind, and answers what it answers."""
        self._upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _OF_ONE_HOP:
                self._upstream.putheader(name, value)
        if "Content-Length" in self.headers:
            self._upstream.putheader("Content-Length", str(len(body)))
        self._upstream.endheaders(body or None)
        answer = self._upstream.getresponse()
        data = answer.read()
        url = urlsplit(self.path)
        self.server.requests.append(Request(self.command, unquote(url.path), url.query, len(body), len(data)))
        self.answer(answer, data)

    def answer(self, answer: HTTPResponse, data: bytes) -> None:
        """Hands the answer on, whose body is `data`."""
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _OF_ONE_HOP:
                self.send_header(name, value)
        length = answer.headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
        if answer.status >= 200 and answer.status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def counting_proxy(upstream: str) -> Iterator[CountingServer]:
    """A running proxy before the server at `upstream`."""
    with running(CountingServer(upstream)) as server:
        yield server


@contextmanager
def running(proxy: Proxy) -> Iterator[Proxy]:
    """Lets a proxy answer while the block runs."""
    with proxy as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
