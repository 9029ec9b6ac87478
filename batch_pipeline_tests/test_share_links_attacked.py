"""Share links whose host, or whose maker, means no good: where they lead, what they send, and what gets out."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_pipeline.errors import InputFailed
from batch_pipeline.pinned_http import is_public
from batch_pipeline.share_links import ShareLinkReader
from batch_pipeline.storage.objects import CHUNK_BYTES
from batch_pipeline_tests.test_share_links import DATA, Site, answer, failure, link, self_signed, site

__all__ = ["site"]

PUBLIC = "93.184.215.14"
Resolver = Callable[..., list[tuple[Any, ...]]]


def resolver(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Names resolve to the first answer, then to the second, and so on; returns the names that were asked for."""
    asked: list[str] = []
    real: Resolver = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *rest: Any, **more: Any) -> list[tuple[Any, ...]]:
        if host.replace(".", "").isdigit() or ":" in host:
            return real(host, port, *rest, **more)
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1.",
        "LOCALHOST",
        "localhost.",
        "0.0.0.0",
        "0",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b:1::127.0.0.1]",
        "[2002:7f00:1::]",
        "[fd00:ec2::254]",
        "[fe80::1%25lo]",
        "[fec0::1]",
        "[ff02::1]",
        "169.254.169.254",
        "2852039166",
        "10.0.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "224.0.0.1",
        "255.255.255.255",
        "evil@127.0.0.1",
        "x.amazonaws.com@127.0.0.1",
        "x.amazonaws.com\\@127.0.0.1",
        "127.0.0.1#x.amazonaws.com",
        "127.0.0.1\\x.amazonaws.com",
        "127。0。0。1",
        "①②⑦.0.0.1",
    ],
)
def test_no_spelling_of_an_address_in_here_is_contacted(host: str, site: Site) -> None:
    """Wherever the link says so itself, and wherever a redirect of a host that may be contacted does."""
    site.answers = {"/away": answer(302, Location=f"https://{host}:{site.port}/x".encode().decode("latin-1"))}
    for shared, reader in (
        (f"https://{host}:{site.port}/x", ShareLinkReader(["*"])),
        (f"{site.url}/away", ShareLinkReader(["*"], site.url)),
    ):
        assert failure(reader, link(shared)).code in {"host_refused", "unreachable"}
    assert [path.partition("?")[0] for path in site.asked] == ["/away"]


@pytest.mark.parametrize("address", [PUBLIC, "2606:2800:21f:cb07::1", "64:ff9b::5db8:d70e", "2002:5db8:d70e::1"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=6))
def test_an_address_is_public_only_where_it_is_routed(address: Any) -> None:
    if is_public(str(address)):
        assert address.packed[0] >> 5 == 1 or address.packed[:12] in (
            bytes.fromhex("0064ff9b0000000000000000"),
            bytes.fromhex("00000000000000000000ffff"),
        )


def test_every_address_of_a_host_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, [PUBLIC, "10.0.0.1"])
    assert failure(ShareLinkReader(), link("https://bucket.s3.amazonaws.com/x")).code == "host_refused"


def test_the_address_that_was_checked_is_the_one_that_is_contacted(
    secure: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads elsewhere the next time it is asked for gains nothing: it is asked for once."""
    asked = resolver(monkeypatch, ["127.0.0.1"], ["192.0.2.1"])
    hosts: list[str | None] = []

    def noting(request: BaseHTTPRequestHandler) -> None:
        hosts.append(request.headers["Host"])
        answer(200, DATA)(request)

    secure.answers = {"/x": noting}
    reader = ShareLinkReader(["files.example"])
    assert reader.open(link(f"https://files.example:{secure.port}/x")).read() == DATA
    assert asked == ["files.example"]
    assert hosts == [f"files.example:{secure.port}"]


def test_the_host_is_checked_anew_for_each_answer(secure: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, ["127.0.0.1"])
    secure.answers = {"/x": answer(302, Location="https://127.0.0.1/y")}
    reader = ShareLinkReader(["files.example", "127.0.0.*"])
    assert failure(reader, link(f"https://files.example:{secure.port}/x")).code == "host_refused"


def test_a_pattern_spelt_as_a_host_is_not_listed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, ["127.0.0.1"])
    assert failure(ShareLinkReader(["*.example"]), link("https://*.example:9/x")).code == "host_refused"


def test_an_address_does_not_become_an_allowed_name_by_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some resolvers pass over a zone that they do not know."""
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET6, 1, 6, "", ("2606:4700::1", 9, 0, 0))]
    )
    code = failure(ShareLinkReader(), link("https://[2606:4700::1%.s3.amazonaws.com]:9/x")).code
    assert code == "host_refused"


def test_no_proxy_of_the_environment_is_asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with Site() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        site.answers = {"/x": answer(200, DATA)}
        assert ShareLinkReader((), site.url).open(link(f"{site.url}/x")).read() == DATA
        assert proxy.asked == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "²"},
        {"Content-Range": "bytes 0-9/²"},
        {"Content-Range": "bytes 0-9/-1"},
        {"Content-Range": "bytes 0-9/" + "9" * 5000},
        {"Content-Range": "bytes 0-9/999999999999999999"},
        {"Content-Range": "bytes 5-14/100"},
        {},
    ],
)
def test_sizes_that_are_none(site: Site, headers: dict[str, str]) -> None:
    def lying(request: BaseHTTPRequestHandler) -> None:
        request.send_response(206 if "Content-Range" in headers else 200)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(DATA)
        request.close_connection = True

    site.answers = {"/x": lying}
    assert failure(ShareLinkReader((), site.url), link(f"{site.url}/x")).code in {"link_refused", "unreachable"}


def test_more_than_was_asked_for_is_not_read(site: Site) -> None:
    sent = threading.Event()

    def flooding(request: BaseHTTPRequestHandler) -> None:
        request.send_response(206)
        request.send_header("Content-Range", "bytes 0-9/10")
        request.end_headers()
        try:
            while True:
                request.wfile.write(bytes(2**20))
        except OSError:
            sent.set()
        request.close_connection = True

    site.answers = {"/x": flooding}
    assert ShareLinkReader((), site.url).open(link(f"{site.url}/x"), 0, 10).read() == bytes(10)
    assert sent.wait(60)


def test_a_large_object_of_a_host_that_ignores_ranges(site: Site) -> None:
    site.answers = {"/x": answer(200, bytes(CHUNK_BYTES + 5))}
    assert len(ShareLinkReader((), site.url).open(link(f"{site.url}/x")).read()) == CHUNK_BYTES + 5

    def large(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(2**40))
        request.end_headers()
        request.close_connection = True

    site.answers = {"/x": large}
    reader = ShareLinkReader((), site.url)
    assert failure(reader, link(f"{site.url}/x")).code == "too_large"
    with pytest.raises(InputFailed) as failed:  # what comes before the part that was asked for would be held, too
        reader.open(link(f"{site.url}/x"), 2**40 - 10, 2**40)
    assert failed.value.code == "too_large"


def _trickled_body(request: BaseHTTPRequestHandler, stopped: threading.Event) -> None:
    request.send_response(206)
    request.send_header("Content-Range", "bytes 0-999999/1000000")
    request.end_headers()
    while not stopped.wait(0.02):
        request.wfile.write(b"x")


def _trickled_headers(request: BaseHTTPRequestHandler, stopped: threading.Event) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while not stopped.wait(0.02):
        request.wfile.write(b"x")


def _endless_interim_answers(request: BaseHTTPRequestHandler, stopped: threading.Event) -> None:
    while not stopped.is_set():
        request.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _endless_trailers(request: BaseHTTPRequestHandler, stopped: threading.Event) -> None:
    request.wfile.write(b"HTTP/1.1 206 OK\r\nTransfer-Encoding: chunked\r\nContent-Range: bytes 0-99/100\r\n\r\n0\r\n")
    while not stopped.is_set():
        request.wfile.write(b"X: y\r\n")


@pytest.mark.parametrize(
    "send",
    [_trickled_body, _trickled_headers, _endless_interim_answers, _endless_trailers],
    ids=lambda one: one.__name__,
)
def test_a_host_that_never_comes_to_an_end(
    site: Site, send: Callable[[BaseHTTPRequestHandler, threading.Event], None]
) -> None:
    stopped = threading.Event()

    def sending(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        with suppress(OSError):
            send(request, stopped)

    site.answers = {"/x": sending}
    try:
        assert failure(ShareLinkReader((), site.url, answer_seconds=0.3), link(f"{site.url}/x")).code == "unreachable"
    finally:
        stopped.set()


def test_a_host_that_says_to_wait_forever(site: Site) -> None:
    site.answers = {"/x": answer(503, Retry_After="99999999")}
    assert failure(ShareLinkReader((), site.url), link(f"{site.url}/x")).code == "unreachable"
    assert len(site.asked) == 3


@pytest.mark.parametrize(
    "location", ["http://[", "//[::1", "https://x:99999/", "https://x:y/", "https:///x", "\xa0", ""]
)
def test_redirects_that_lead_nowhere(site: Site, location: str) -> None:
    site.answers = {"/x": answer(302, Location=location), "/\xa0": answer(404), "/%C2%A0": answer(404)}
    assert failure(ShareLinkReader((), site.url), link(f"{site.url}/x")).code in {
        "host_refused", "not_found", "link_refused",
    }  # fmt: skip


def test_a_redirect_to_a_host_without_end_is_not_repeated(site: Site) -> None:
    site.answers = {"/x": answer(302, Location=f"https://{'h' * 60_000}/k")}
    error = failure(ShareLinkReader((), site.url), link(f"{site.url}/x"))
    assert (error.code, len(error.message) < 100) == ("host_refused", True)


@given(st.text(max_size=40), st.text(max_size=20))
@settings(max_examples=300)
def test_whatever_a_redirect_says(host: str, path: str) -> None:
    """Nobody answers here: it is refused, or at the most not reached, and never a crash."""
    with pytest.raises(InputFailed) as error:
        ShareLinkReader(["*.nowhere.invalid"])._check(f"https://{host}.nowhere.invalid/{path}")
    assert error.value.code in {"host_refused", "unreachable"}


def test_nothing_of_a_signature_is_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def hanging_up(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True

    def no_header(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{request.path} without colon\r\n\r\n".encode())

    site.answers = {
        "/good": answer(200, DATA),
        "/odd": no_header,
        "/away": answer(302, Location="/good?Signature=SECRET"),
        "/down": answer(503),
        "/none": answer(404),
        "/cut": hanging_up,
    }
    reader = ShareLinkReader((), site.url)
    assert reader.open(link(f"{site.url}/away")).read() == DATA
    for path in ("/down", "/none", "/cut"):
        failure(reader, link(site.url + path))
    assert reader.open(link(f"{site.url}/odd")).read() == b""
    logged = [record.getMessage() + repr(record.args) for record in caplog.records]
    assert any("/cut" in text or "/down" in text for text in logged)
    assert any("Failed to parse headers" in text and "/odd" in text for text in logged)
    assert not [text for text in [*logged, caplog.text] if "SECRET" in text]


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site with TLS, whose certificate for files.example is trusted."""
    key, certificate = self_signed(tmp_path, "files.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    with Site() as site:
        site.server.socket = context.wrap_socket(site.server.socket, server_side=True)
        yield site
