"""Reading other people's objects through signed addresses: which hosts are contacted, and how. Never shows a link."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from batch_pipeline.errors import InputFailed
from batch_pipeline.locations import ShareLink
from batch_pipeline.storage.objects import CHUNK_BYTES, Stream

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse
    from urllib3.connectionpool import HTTPConnectionPool

DEFAULT_HOSTS = ("*.myhuaweicloud.com", "*.myhwclouds.com", "*.amazonaws.com")
_MAX_REDIRECTS = 5
_TRIES = 3
_CONNECT_SECONDS, _READ_SECONDS = 5, 60
_ERROR_BYTES = 4096
_MAX_POOLS, _POOL_SIZE = 64, 16
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that a network turns into any IPv4 address, private ones too."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True)
class LinkInfo:
    """What a share link leads to: size in bytes, and the ETag without quotes."""

    size: int
    etag: str


@dataclass(frozen=True)
class _Target:
    """One address that may be contacted, pinned to the IP address that was checked."""

    parts: SplitResult
    address: str

    @property
    def path(self) -> str:
        path = quote(self.parts.path or "/", safe="/%:@!$&'()*+,;=~")
        return path + ("?" + quote(self.parts.query, safe="/%:@!$&'()*+,;=~?") if self.parts.query else "")


class ShareLinkReader:
    """Reads share links on hosts that the deployment allows. Safe for several threads.

    `hosts` are names or patterns (`*.example.com`); `endpoint` is the configured object store's address, which is
    allowed too, and is the only one that may use plain http. Everything that goes wrong with a link is InputFailed
    with one of the codes `link_expired`, `link_refused`, `host_refused`, `not_found`, `changed`, `unreachable`.
    """

    def __init__(self, hosts: Sequence[str] = DEFAULT_HOSTS, endpoint: str | None = None) -> None:
        self._hosts = tuple(host.lower() for host in hosts)
        self._endpoint = _origin(urlsplit(endpoint)) if endpoint else None
        self._pools: dict[tuple[object, ...], HTTPConnectionPool] = {}

    def head(self, link: ShareLink) -> LinkInfo:
        """Size and ETag, asked with a GET of one byte, since the signature is for GET alone."""
        response = self._get(link, 0, 1, None)
        try:
            return LinkInfo(_whole_size(response), _etag(response))
        finally:
            response.close()

    def open(self, link: ShareLink, start: int = 0, end: int | None = None, if_match: str | None = None) -> Stream:
        """Read the bytes [start, end) in chunks of about 8 MiB. Raises InputFailed."""
        if end is not None and end <= start:
            info = self.head(link)
            return Stream(info.size, info.etag, iter(()))
        stop = start + CHUNK_BYTES if end is None else min(end, start + CHUNK_BYTES)
        first = self._read(link, start, stop, if_match)
        until = first.size if end is None else min(end, first.size)
        return Stream(first.size, first.etag, self._chunks(link, first, start, until))

    def _chunks(self, link: ShareLink, first: _Part, start: int, stop: int) -> Iterator[bytes]:
        """Range after range: a slow reader holds no connection, and a link that expires on the way says so."""
        position = start + len(first.data)
        if first.data:
            yield first.data
        while position < stop:
            part = self._read(link, position, min(position + CHUNK_BYTES, stop), first.etag or None)
            if not part.data or part.size != first.size:
                raise InputFailed("changed", "the object behind the link changed while it was read")
            position += len(part.data)
            yield part.data

    def _read(self, link: ShareLink, start: int, end: int, if_match: str | None) -> _Part:
        from urllib3.exceptions import HTTPError

        for attempt in range(_TRIES):
            response = self._get(link, start, end, if_match)
            try:
                return _part(response, start, end)
            except HTTPError:
                if attempt == _TRIES - 1:
                    raise _unreachable("the host broke off its answer") from None
            finally:
                response.close()
        raise AssertionError("unreachable")

    def _get(self, link: ShareLink, start: int, end: int, if_match: str | None) -> BaseHTTPResponse:
        """The answer to a ranged GET, redirects followed and each one checked; not yet read."""
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        if if_match is not None:
            headers["If-Match"] = f'"{if_match}"'
        url = link.url
        for _ in range(_MAX_REDIRECTS + 1):
            target = self._check(url)
            response = _request(self._pool(target), target, headers)
            if response.status not in _REDIRECTS or "Location" not in response.headers:
                return _judge(response, link)
            response.close()
            url = urljoin(url, response.headers["Location"])
        raise InputFailed("link_refused", f"the link was redirected more than {_MAX_REDIRECTS} times")

    def _check(self, url: str) -> _Target:
        """Refuse an address that may not be contacted; else resolve it once and keep the address that was checked."""
        try:
            parts = urlsplit(url)
            host, origin = (parts.hostname or "").lower(), _origin(parts)
        except ValueError:
            raise InputFailed("host_refused", "the link leads to no valid address") from None
        ours = origin == self._endpoint
        if parts.scheme != "https" and not (ours and parts.scheme == "http"):
            raise InputFailed("host_refused", f"only https is allowed, which the address at {host!r} is not")
        if not ours and not any(fnmatchcase(host, pattern) for pattern in self._hosts):
            raise InputFailed("host_refused", f"this deployment does not allow share links of the host {host!r}")
        return _Target(parts, _resolve(host, origin[2], any_address=ours or host in self._hosts))

    def _pool(self, target: _Target) -> HTTPConnectionPool:
        """Connections to one host at one checked address, kept for the next object."""
        key = (*_origin(target.parts), target.address)
        found = self._pools.get(key)
        if found is None:
            if len(self._pools) >= _MAX_POOLS:
                self._pools.clear()
            found = self._pools.setdefault(key, _make_pool(target))
        return found

    def __getstate__(self) -> dict[str, object]:
        return {"_hosts": self._hosts, "_endpoint": self._endpoint, "_pools": {}}


@dataclass(frozen=True)
class _Part:
    data: bytes
    size: int
    etag: str


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or (443 if scheme == "https" else 80)


def _resolve(host: str, port: int, *, any_address: bool) -> str:
    """The host's first address. All of them must be public, unless the host is listed by name."""
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        raise _unreachable(f"the host {host!r} is not known") from None
    if not any_address and not all(_is_public(address) for address in found):
        raise InputFailed("host_refused", f"the host {host!r} has an address that is private or not routed")
    return found[0]


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    inside = getattr(ip, "sixtofour", None)
    translated = ip.version == 6 and ip in _TRANSLATED
    return ip.is_global and not ip.is_multicast and not translated and (inside is None or inside.is_global)


def _request(pool: HTTPConnectionPool, target: _Target, headers: Mapping[str, str]) -> BaseHTTPResponse:
    """Ask the pinned address, under the host's own name (Host, SNI and certificate)."""
    from urllib3 import Retry
    from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

    retries = Retry(_TRIES - 1, redirect=False, status_forcelist=_TRANSIENT, backoff_factor=0.2, raise_on_status=False)
    host = target.parts.hostname or ""
    try:
        return pool.urlopen(
            "GET",
            target.path,
            headers={**headers, "Host": target.parts.netloc.rpartition("@")[2]},
            redirect=False,
            retries=retries,
            preload_content=False,
            assert_same_host=False,
        )
    except MaxRetryError as error:
        if isinstance(error.reason, SSLError):
            raise _unreachable(f"the certificate of {host!r} was not accepted") from None
        raise _unreachable(f"the host {host!r} does not answer") from None
    except HTTPError:
        raise _unreachable(f"the host {host!r} does not answer") from None


def _make_pool(target: _Target) -> HTTPConnectionPool:
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Timeout

    _, host, port = _origin(target.parts)
    timeout = Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS)
    if target.parts.scheme == "http":
        return HTTPConnectionPool(target.address, port, timeout=timeout, maxsize=_POOL_SIZE)
    authorities = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
    return HTTPSConnectionPool(
        target.address,
        port,
        timeout=timeout,
        maxsize=_POOL_SIZE,
        server_hostname=host,
        assert_hostname=host,
        ca_certs=authorities,
    )


def _judge(response: BaseHTTPResponse, link: ShareLink) -> BaseHTTPResponse:
    """The answer, if it is one with data in it (or is past the end); else the reason why not."""
    if response.status in (200, 206, 416):
        return response
    text = response.read(_ERROR_BYTES, decode_content=False).decode("utf-8", "replace")
    response.close()
    if response.status in (404, 410):
        raise InputFailed("not_found", "there is no object behind the link")
    if response.status == 412:
        raise InputFailed("changed", "the object behind the link is not, or no longer, the version it was asked for as")
    if response.status in (400, 401, 403):
        if "expired" in text.lower() or (link.expires and link.expires < datetime.now(UTC)):
            when = f" on {link.expires:%Y-%m-%d %H:%M:%S} UTC" if link.expires else ""
            raise InputFailed("link_expired", f"the share link expired{when}; ask for a new one")
        raise InputFailed("link_refused", f"the host refused the share link (HTTP {response.status})")
    raise _unreachable(f"the host answered HTTP {response.status}")


def _part(response: BaseHTTPResponse, start: int, end: int) -> _Part:
    """What the answer holds of [start, end), also where the host ignores ranges and sends everything."""
    etag = _etag(response)
    if response.status == 416:
        return _Part(b"", _whole_size(response), etag)
    if response.status == 206:
        return _Part(response.read(decode_content=False), _whole_size(response), etag)
    for chunk in _skip(response, start):
        return _Part(chunk + _at_most(response, end - start - len(chunk)), _whole_size(response), etag)
    return _Part(b"", _whole_size(response), etag)


def _skip(response: BaseHTTPResponse, count: int) -> Iterator[bytes]:
    while count > 0:
        chunk = response.read(min(count, CHUNK_BYTES), decode_content=False)
        if not chunk:
            return
        count -= len(chunk)
    yield b""


def _at_most(response: BaseHTTPResponse, count: int) -> bytes:
    return response.read(count, decode_content=False)


def _whole_size(response: BaseHTTPResponse) -> int:
    text = response.headers.get("Content-Range", "").rpartition("/")[2]
    if not text and response.status != 416:
        text = response.headers.get("Content-Length", "")
    if response.status == 416 and not text.isdigit():
        return 0
    if not text.isdigit():
        raise InputFailed("link_refused", "the host does not say how large the object is")
    return int(text)


def _etag(response: BaseHTTPResponse) -> str:
    return response.headers.get("ETag", "").removeprefix("W/").strip('"')


def _unreachable(why: str) -> InputFailed:
    return InputFailed("unreachable", why)
