"""A proxy before an S3 server that does what networks and stores do on bad days, by a script that a seed decides."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPResponse
from urllib.parse import parse_qs, unquote, urlsplit

from benchmarks.counting_proxy import CountingServer, Handler, running


@dataclass(frozen=True)
class Ask:
    """One request, before it is answered. `number` counts them from 1."""

    number: int
    method: str
    path: str
    """`/bucket/key`, decoded."""
    query: frozenset[str]
    """The names of its parameters."""

    @property
    def is_listing(self) -> bool:
        return self.method == "GET" and "list-type" in self.query

    @property
    def is_read(self) -> bool:
        return self.method == "GET" and not self.is_listing

    @property
    def is_write(self) -> bool:
        return self.method == "PUT" or (self.method == "POST" and bool(self.query & {"uploads", "uploadId"}))


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    `status`: it is refused with this status and code, and never reaches the store. `lost`: the store does it, and the
    connection breaks before the answer. `reset` and `truncated`: the answer breaks off in the middle of its body, with
    a reset or with a plain end. `slow`: its body comes in small pieces. `etag`: it names another version.
    """

    kind: str
    status: int = 0
    code: str = ""

    @property
    def name(self) -> str:
        return self.code or self.kind


BUSY = (
    Fault("status", 500, "InternalError"),
    Fault("status", 503, "SlowDown"),
    Fault("status", 429, "TooManyRequests"),
)
BROKEN = (Fault("reset"), Fault("truncated"), Fault("lost"))
SLOW = Fault("slow")
OTHER_ETAG = Fault("etag")
CONFLICT = Fault("status", 409, "OperationAborted")
CONDITION = Fault("status", 412, "PreconditionFailed")
EXPIRED = Fault("status", 403, "ExpiredToken")
DENIED = Fault("status", 403, "AccessDenied")
QUOTA = Fault("status", 403, "QuotaExceeded")
FULL = Fault("status", 507, "XMinioStorageFull")
NO_BUCKET = Fault("status", 404, "NoSuchBucket")

Script = Callable[[Ask], Fault | None]
"""What is wrong with a request; None: nothing. Asked of one request at a time."""


def nothing(ask: Ask) -> Fault | None:
    return None


def bursts(seed: int, faults: Sequence[Fault], *, rate: float, longest: int = 4) -> Script:
    """Before so many of the requests, one of the faults begins, and lasts for up to `longest` requests."""
    chance = random.Random(seed)
    left, current = 0, faults[0]

    def script(ask: Ask) -> Fault | None:
        nonlocal left, current
        if not left and chance.random() < rate:
            left, current = chance.randint(1, longest), chance.choice(faults)
        if not left:
            return None
        left -= 1
        return current

    return script


def where(which: Callable[[Ask], bool], fault: Fault, *, first: int = 0, most: int | None = None) -> Script:
    """The fault for every request of that kind, less the `first` ones, and at most so many times."""
    seen = 0

    def script(ask: Ask) -> Fault | None:
        nonlocal seen
        if not which(ask):
            return None
        seen += 1
        return fault if seen > first and (most is None or seen <= first + most) else None

    return script


class FaultyServer(CountingServer):
    """Passes on what its script leaves alone. `script` may be exchanged at any time."""

    def __init__(self, upstream: str, script: Script) -> None:
        super().__init__(upstream, _FaultyHandler)
        self.script = script
        self.asked: list[Ask] = []
        self.injected: Counter[str] = Counter()
        self._guard = threading.Lock()

    def fault(self, ask: Ask) -> Fault | None:
        with self._guard:
            ask = replace(ask, number=len(self.asked) + 1)
            self.asked.append(ask)
            found = self.script(ask)
            if found is not None:
                self.injected[found.name] += 1
            return found

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed has left its connections; that is nothing to tell."""


class _FaultyHandler(Handler):
    server: FaultyServer
    _fault: Fault | None

    def pass_on(self, body: bytes) -> None:
        url = urlsplit(self.path)
        names = frozenset(parse_qs(url.query, keep_blank_values=True))
        self._fault = self.server.fault(Ask(0, self.command, unquote(url.path), names))
        if self._fault is not None and self._fault.kind == "status":
            self._refuse(self._fault)
        else:
            super().pass_on(body)

    def answer(self, answer: HTTPResponse, data: bytes) -> None:
        kind = self._fault.kind if self._fault is not None else ""
        if kind == "lost" or (kind in ("reset", "truncated") and not data):
            self._break(reset=True)
        elif kind in ("reset", "truncated"):
            whole, self.wfile = self.wfile, _Half(self.wfile, len(data) // 2)  # type: ignore[assignment]
            super().answer(answer, data)
            self.wfile = whole
            self._break(reset=kind == "reset")
        else:
            if kind == "etag" and "ETag" in answer.headers:
                answer.headers.replace_header("ETag", '"0123456789abcdef0123456789abcdef"')
            whole, self.wfile = self.wfile, _Slow(self.wfile) if kind == "slow" else self.wfile  # type: ignore[assignment]
            super().answer(answer, data)
            self.wfile = whole

    def _refuse(self, fault: Fault) -> None:
        text = f'<?xml version="1.0"?><Error><Code>{fault.code}</Code><Message>{fault.code}</Message></Error>'
        data = b"" if self.command == "HEAD" else text.encode()
        self.send_response_only(fault.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _break(self, *, reset: bool) -> None:
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True


class _Half:
    """Lets the headers pass, which come in one piece, and of the body the first bytes."""

    def __init__(self, file: object, size: int) -> None:
        self._file, self._size, self._writes = file, size, 0

    def write(self, data: bytes) -> int:
        self._writes += 1
        self._file.write(data if self._writes == 1 else data[: self._size])  # type: ignore[attr-defined]
        return len(data)

    def flush(self) -> None:
        self._file.flush()  # type: ignore[attr-defined]


class _Slow:
    """Everything in ten pieces, over half a second."""

    def __init__(self, file: object) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        step = max(1, len(data) // 10 + 1)
        for start in range(0, len(data), step):
            self._file.write(data[start : start + step])  # type: ignore[attr-defined]
            time.sleep(0.05)
        return len(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


@contextmanager
def faulty_proxy(upstream: str, script: Script = nothing) -> Iterator[FaultyServer]:
    """A running one before the server at `upstream`."""
    with running(FaultyServer(upstream, script)) as server:
        yield server
