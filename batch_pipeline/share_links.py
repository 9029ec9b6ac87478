"""Reading other people's objects through signed addresses: which hosts are contacted, and how. Never shows a link."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit

from batch_pipeline.errors import InputFailed
from batch_pipeline.locations import ShareLink
from batch_pipeline.pinned_http import Target, make_pool, origin, resolve
from batch_pipeline.storage.objects import CHUNK_BYTES, Stream

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse
    from urllib3.connectionpool import HTTPConnectionPool

DEFAULT_HOSTS = ("*.myhuaweicloud.com", "*.myhwclouds.com", "*.amazonaws.com")
_MAX_REDIRECTS = 5
_TRIES = 3
_FIRST_WAIT = 0.2
_ANSWER_SECONDS = 300.0
"""The longest that one answer, of at most 8 MiB, may take."""
_LARGEST_OBJECT = 50 * 2**40
"""No store holds larger ones: a host that names a larger size lies."""
_LARGEST_UNDIVIDED = 64 * 2**20
"""Of a host that ignores ranges: each 8 MiB are read from the object's beginning."""
_LONGEST_ETAG = 256
_ERROR_BYTES = 4096
_MAX_POOLS = 64
_T = TypeVar("_T")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True)
class LinkInfo:
    """What a share link leads to: size in bytes, and the ETag without quotes."""

    size: int
    etag: str


class ShareLinkReader:
    """Reads share links on hosts that the deployment allows. Safe for several threads.

    `hosts` are names or patterns (`*.example.com`); `endpoint` is the configured object store's address, which is
    allowed too, and is the only one that may use plain http. Everything that goes wrong with a link is InputFailed
    with one of the codes `link_expired`, `link_refused`, `host_refused`, `not_found`, `changed`, `unreachable`.
    """

    def __init__(
        self, hosts: Sequence[str] = DEFAULT_HOSTS, endpoint: str | None = None, answer_seconds: float = _ANSWER_SECONDS
    ) -> None:
        self._hosts = tuple(host.lower() for host in hosts)
        # A link may spell a pattern as its host: that is not to be listed by name.
        self._named = frozenset(host for host in self._hosts if not any(sign in host for sign in "*?["))
        self._endpoint = origin(urlsplit(endpoint)) if endpoint else None
        self._answer_seconds = answer_seconds
        self._pools: dict[tuple[object, ...], HTTPConnectionPool] = {}

    def head(self, link: ShareLink) -> LinkInfo:
        """Size and ETag, asked with a GET of one byte, since the signature is for GET alone."""
        return self._ask(link, 0, 1, None, lambda response: LinkInfo(_whole_size(response), _etag(response)))

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
        return self._ask(link, start, end, if_match, lambda response: _part(response, start, end))

    def _ask(
        self, link: ShareLink, start: int, end: int, if_match: str | None, read: Callable[[BaseHTTPResponse], _T]
    ) -> _T:
        """What `read` makes of the answer to a ranged GET. Only what may pass is tried again, a little later."""
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        if if_match is not None:
            headers["If-Match"] = f'"{if_match}"'
        for attempt in range(1, _TRIES):
            try:
                return self._ask_once(link, headers, read)
            except _MayPass:
                time.sleep(_FIRST_WAIT * 2**attempt)
        return self._ask_once(link, headers, read)

    def _ask_once(self, link: ShareLink, headers: Mapping[str, str], read: Callable[[BaseHTTPResponse], _T]) -> _T:
        """Redirects are followed, and each one is checked."""
        from urllib3.exceptions import HTTPError

        url = link.url
        for _ in range(_MAX_REDIRECTS + 1):
            target = self._check(url)
            with closing(_request(self._pool(target), target, headers)) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    url = _redirected(url, response.headers["Location"])
                    continue
                try:
                    _judge(response, link)
                    return read(response)
                except (HTTPError, OSError):
                    raise _MayPass("the host broke off its answer, or sent it too slowly") from None
        raise InputFailed("link_refused", f"the link was redirected more than {_MAX_REDIRECTS} times")

    def _check(self, url: str) -> Target:
        """Refuse an address that may not be contacted; else resolve it once and keep the address that was checked."""
        try:
            parts = urlsplit(url)
            scheme, host, port = its_origin = origin(parts)
        except ValueError:
            raise InputFailed("host_refused", "the link leads to no valid address") from None
        ours = its_origin == self._endpoint
        if scheme != "https" and not (ours and scheme == "http"):
            raise InputFailed("host_refused", f"only https is allowed, which the address at {host!r} is not")
        if not ours and not any(fnmatchcase(host, pattern) for pattern in self._hosts):
            raise InputFailed("host_refused", f"this deployment does not allow share links of the host {host!r}")
        return Target(parts, resolve(host, port, any_address=ours or host in self._named))

    def _pool(self, target: Target) -> HTTPConnectionPool:
        """Connections to one host at one checked address, kept for the next object."""
        key = (*origin(target.parts), target.address)
        found = self._pools.get(key)
        if found is None:
            if len(self._pools) >= _MAX_POOLS:
                self._pools.clear()
            found = self._pools.setdefault(key, make_pool(target, self._answer_seconds))
        return found

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pools": {}}


@dataclass(frozen=True)
class _Part:
    data: bytes
    size: int
    etag: str


class _MayPass(InputFailed):
    """The host could not be reached, or did not answer as it should; it may do so the next time."""

    def __init__(self, why: str) -> None:
        super().__init__("unreachable", why)


def _request(pool: HTTPConnectionPool, target: Target, headers: Mapping[str, str]) -> BaseHTTPResponse:
    """Ask the pinned address, under the host's own name (Host, SNI and certificate); not yet read."""
    from urllib3.exceptions import HTTPError, SSLError

    host = target.parts.hostname or ""
    try:
        # Without urllib3's own retries: it logs the signature, and waits as long as the host tells it.
        return pool.urlopen(
            "GET",
            target.path,
            headers={**headers, "Host": target.host},
            redirect=False,
            retries=False,
            preload_content=False,
            assert_same_host=False,
        )
    except SSLError:
        raise InputFailed("unreachable", f"the certificate of {host!r} was not accepted") from None
    except (HTTPError, OSError):
        raise _MayPass(f"the host {host!r} does not answer") from None


def _redirected(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise InputFailed("host_refused", "the link leads to no valid address") from None


def _judge(response: BaseHTTPResponse, link: ShareLink) -> None:
    """Nothing, if the answer is one with data in it (or is past the end); else raises the reason why not."""
    if response.status in (200, 206, 416):
        return
    if response.status in (404, 410):
        raise InputFailed("not_found", "there is no object behind the link")
    if response.status == 412:
        raise InputFailed("changed", "the object behind the link is not, or no longer, the version it was asked for as")
    if response.status in (400, 401, 403):
        text = response.read(_ERROR_BYTES, decode_content=False).decode("utf-8", "replace")
        if "expired" in text.lower() or (link.expires and link.expires < datetime.now(UTC)):
            when = f" on {link.expires:%Y-%m-%d %H:%M:%S} UTC" if link.expires else ""
            raise InputFailed("link_expired", f"the share link expired{when}; ask for a new one")
        raise InputFailed("link_refused", f"the host refused the share link (HTTP {response.status})")
    what = f"the host answered HTTP {response.status}"
    raise _MayPass(what) if response.status in _TRANSIENT else InputFailed("unreachable", what)


def _part(response: BaseHTTPResponse, start: int, end: int) -> _Part:
    """What the answer holds of [start, end) and no more, also where the host ignores ranges and sends everything."""
    size, etag = _whole_size(response), _etag(response)
    if response.status == 416:
        return _Part(b"", size, etag)
    if response.status == 206:
        if not response.headers.get("Content-Range", "").lower().startswith(f"bytes {start}-"):
            raise InputFailed("link_refused", "the host sent another part of the object than it was asked for")
        return _Part(_exactly(response, min(end, size) - start), size, etag)
    if size > _LARGEST_UNDIVIDED:
        what = f"sends objects only whole, and then at most {_LARGEST_UNDIVIDED} bytes are taken; this one has {size}"
        raise InputFailed("too_large", f"the host {what}")
    return _Part(_exactly(response, min(end, size))[start:], size, etag)


def _exactly(response: BaseHTTPResponse, count: int) -> bytes:
    data = response.read(count, decode_content=False) if count > 0 else b""
    if len(data) < count:
        raise _MayPass("the host broke off its answer")
    return data


def _whole_size(response: BaseHTTPResponse) -> int:
    text = response.headers.get("Content-Range", "").rpartition("/")[2]
    if not text and response.status != 416:
        text = response.headers.get("Content-Length", "")
    known = text.isascii() and text.isdigit()
    if response.status == 416 and not known:
        return 0
    if not known:
        raise InputFailed("link_refused", "the host does not say how large the object is")
    if len(text) > len(str(_LARGEST_OBJECT)) or int(text) > _LARGEST_OBJECT:
        raise InputFailed("link_refused", "the host says that the object is larger than any object can be")
    return int(text)


def _etag(response: BaseHTTPResponse) -> str:
    """Without its quotes; none where it is none that the host could be asked for again."""
    etag = response.headers.get("ETag", "").removeprefix("W/").strip('"')
    return etag if etag.isascii() and etag.isprintable() and len(etag) <= _LONGEST_ETAG else ""
