"""Connections to a host at the one address that was checked, for a limited time, with nothing secret in the log."""

from __future__ import annotations

import io
import ipaddress
import logging
import os
import re
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote

from batch_pipeline.errors import InputFailed
from batch_pipeline.locations import LONGEST_HOST

if TYPE_CHECKING:
    from urllib3.connectionpool import HTTPConnectionPool

_CONNECT_SECONDS, _READ_SECONDS = 5, 60
_POOL_SIZE = 16
_ROUTED = ipaddress.ip_network("2000::/3")
"""Where all public IPv6 addresses are."""
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that a network turns into the IPv4 address in their last four bytes."""
_SPECIAL = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "3fff::/20"))
)
"""What is no host's own address, beside what `is_global` knows: older Pythons know less."""
_LOGGERS = ("urllib3.connection", "urllib3.connectionpool", "urllib3.response", "urllib3.util.retry")
_QUERY = re.compile(r"\?\S*")


@dataclass(frozen=True)
class Target:
    """One address that may be contacted, pinned to the IP address that was checked."""

    parts: SplitResult
    address: str

    @property
    def path(self) -> str:
        path = quote(self.parts.path or "/", safe="/%:@!$&'()*+,;=~")
        return path + ("?" + quote(self.parts.query, safe="/%:@!$&'()*+,;=~?") if self.parts.query else "")

    @property
    def host(self) -> str:
        """As the `Host` header has it."""
        return self.parts.netloc.rpartition("@")[2]


def origin(parts: SplitResult) -> tuple[str, str, int]:
    """Scheme, host and port. Raises ValueError for a host that no request could name."""
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    if not host.isascii() or not host.isprintable():
        raise ValueError("a host's name is ASCII; another is written in Punycode")
    if len(host) > LONGEST_HOST:
        raise ValueError("a host's name is not as long")
    if "%" in host:
        raise ValueError("what follows an address after a % is no part of a name that a pattern could allow")
    return scheme, host, parts.port or (443 if scheme == "https" else 80)


def resolve(host: str, port: int, *, any_address: bool) -> str:
    """The host's first address. All of them must be public, unless any address will do. Raises InputFailed."""
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        raise InputFailed("unreachable", f"the host {host!r} is not known") from None
    if not any_address and not all(is_public(address) for address in found):
        raise InputFailed("host_refused", f"the host {host!r} has an address that is private or not routed")
    return found[0]


def is_public(address: str) -> bool:
    """Whether anybody on the internet could reach this address, which so is no way into the network here."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (_last_four_bytes(ip) if ip in _TRANSLATED else None)
        if inner is not None:
            return is_public(str(inner))
        if ip not in _ROUTED:
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _SPECIAL)


def make_pool(target: Target, answer_seconds: float) -> HTTPConnectionPool:
    """Connections to the target's address under its host's name (SNI and certificate). No proxy is asked.

    An answer must have come whole after `answer_seconds`, be it ever so steady a trickle.
    """
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Timeout
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            self.sock: Any = _Watched(self.sock, answer_seconds)

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            self.sock: Any = _Watched(self.sock, answer_seconds)

    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_without_queries)
    _, host, port = origin(target.parts)
    timeout = Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS)
    if target.parts.scheme == "http":
        pool = HTTPConnectionPool(target.address, port, timeout=timeout, maxsize=_POOL_SIZE)
        pool.ConnectionCls = Plain
        return pool
    secure = HTTPSConnectionPool(
        target.address,
        port,
        timeout=timeout,
        maxsize=_POOL_SIZE,
        server_hostname=host,
        assert_hostname=host,
        ca_certs=os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE"),
    )
    secure.ConnectionCls = Secure
    return secure


class _Watched:
    """A socket whose answers end in time: each that is begun with `makefile` has so many seconds to its last byte."""

    def __init__(self, connected: socket.socket, seconds: float) -> None:
        self._socket = connected
        self._seconds = seconds

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(_Timed(self._socket, time.monotonic() + self._seconds))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class _Timed(io.RawIOBase):
    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket = connected
        self._raw = connected.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        self._socket.settimeout(min(_READ_SECONDS, left))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _last_four_bytes(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(ip.packed[-4:])


def _without_queries(record: logging.LogRecord) -> bool:
    """urllib3 logs whole addresses, in which a signature stands, and with its exceptions what a host answered."""
    if isinstance(record.args, tuple):
        record.args = tuple(_without_query(one) for one in record.args)
    record.exc_info = None
    return True


def _without_query(one: object) -> object:
    if isinstance(one, BaseException):
        return type(one).__name__
    return _QUERY.sub("", one) if isinstance(one, str) else one
