"""Share links against real servers: moto's presigned addresses, and a small HTTP server that misbehaves on purpose."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import pickle
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlsplit

import boto3
import pytest
from botocore.config import Config

from batch_pipeline.errors import InputFailed
from batch_pipeline.locations import Location, ShareLink
from batch_pipeline.share_links import DEFAULT_HOSTS, ShareLinkReader
from batch_pipeline.storage import Storage
from batch_pipeline.storage.objects import CHUNK_BYTES
from batch_pipeline_tests.conftest import S3Server

DATA = b"0123456789"
Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """A local HTTP server whose paths are answered by functions of the test."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append(self.path)
                site.answers[urlsplit(self.path).path](self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Site:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return send


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def link(url: str) -> ShareLink:
    return ShareLink(url + "?Signature=SECRET&Expires=99999999999&AccessKeyId=AK")


def failure(reader: ShareLinkReader, share_link: ShareLink) -> InputFailed:
    with pytest.raises(InputFailed) as error, reader.open(share_link) as stream:
        stream.read()
    assert "SECRET" not in str(error.value)
    assert "Signature" not in str(error.value)
    assert "\n" not in str(error.value)
    return error.value


@pytest.mark.parametrize("version", ["s3", "s3v4"])
@pytest.mark.parametrize("name", ["a.csv", "dir/猫 +%2F&.jpg"])
def test_presigned_links_of_both_versions(s3: S3Server, bucket: str, name: str, version: str) -> None:
    Storage().write(Location(bucket, name), DATA)
    reader = ShareLinkReader((), s3.endpoint)
    shared = ShareLink(presigned(s3, bucket, name, version))
    assert shared.name == name.rpartition("/")[2]
    with reader.open(shared) as stream:
        assert (stream.size, stream.read()) == (10, DATA)
    assert reader.open(shared, 2, 5).read() == DATA[2:5]
    assert reader.open(shared, 10).read() == reader.open(shared, 4, 4).read() == b""
    info = reader.head(shared)
    assert (info.size, info.etag) == (10, Storage().head(Location(bucket, name)).etag)


def test_large_and_empty_objects(s3: S3Server, bucket: str) -> None:
    data = os.urandom(CHUNK_BYTES + 100)
    Storage().write(Location(bucket, "large"), data)
    Storage().write(Location(bucket, "empty"), b"")
    reader = ShareLinkReader((), s3.endpoint)
    with reader.open(ShareLink(presigned(s3, bucket, "large", "s3v4"))) as stream:
        chunks = list(stream)
    assert b"".join(chunks) == data
    assert len(chunks) == 2
    with reader.open(ShareLink(presigned(s3, bucket, "empty", "s3v4"))) as stream:
        assert (stream.size, stream.read()) == (0, b"")


def test_links_that_ceph_refuses(rgw_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from batch_pipeline_tests.conftest import make_bucket, use_server

    use_server(rgw_server, monkeypatch)
    bucket = make_bucket()
    Storage().write(Location(bucket, "猫.csv"), DATA)
    reader = ShareLinkReader((), rgw_server.endpoint)
    good = obs_style(rgw_server, bucket, "猫.csv", int(time.time()) + 60)
    assert reader.open(ShareLink(good)).read() == DATA
    expired = ShareLink(obs_style(rgw_server, bucket, "猫.csv", 1_700_000_000))
    assert failure(reader, expired).code == "link_expired"
    assert "2023-11-14" in str(failure(reader, expired))
    assert failure(reader, ShareLink(good.replace("Signature=", "Signature=x"))).code == "link_refused"
    missing = ShareLink(obs_style(rgw_server, bucket, "none", int(time.time()) + 60))
    assert failure(reader, missing).code == "not_found"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.com/x", "host_refused"),
        ("https://x.amazonaws.com.evil.org/x", "host_refused"),
        ("http://x.s3.amazonaws.com/x", "host_refused"),
        ("https://127.0.0.1/x", "host_refused"),
        ("https://[::1]/x", "host_refused"),
        ("https://none.invalid.myhuaweicloud.com.invalid/x", "host_refused"),
    ],
)
def test_hosts_that_are_not_allowed(url: str, code: str) -> None:
    assert failure(ShareLinkReader(DEFAULT_HOSTS), link(url)).code == code


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "169.254.169.254"]
)
def test_private_addresses_are_refused_though_a_pattern_allows_them(host: str) -> None:
    assert failure(ShareLinkReader(["*"]), link(f"https://{host}:1/x")).code == "host_refused"


def test_a_host_listed_by_name_may_be_private_but_not_plain(site: Site) -> None:
    reader = ShareLinkReader(["127.0.0.1"])
    assert failure(reader, link(f"{site.url}/x")).code == "host_refused"
    assert failure(reader, link("https://127.0.0.1:9/x")).code == "unreachable"


def test_redirects_are_followed_and_checked(site: Site) -> None:
    reader = ShareLinkReader((), site.url)
    site.answers = {
        "/good": answer(302, Location="/data"),
        "/data": answer(200, DATA),
        "/elsewhere": answer(307, Location="https://example.com/x"),
        "/inside": answer(307, Location="http://169.254.169.254/latest"),
        "/port": answer(307, Location=f"http://127.0.0.1:{site.port + 1}/x"),
        "/ring": answer(302, Location="/ring"),
    }
    assert reader.open(link(f"{site.url}/good")).read() == DATA
    for path in ("/elsewhere", "/inside", "/port"):
        assert failure(reader, link(site.url + path)).code == "host_refused"
    site.asked.clear()
    assert failure(reader, link(f"{site.url}/ring")).code == "link_refused"
    assert len(site.asked) == 6


def test_a_host_that_ignores_ranges(site: Site) -> None:
    site.answers = {"/x": answer(200, DATA, ETag='"e"')}
    reader = ShareLinkReader((), site.url)
    assert reader.open(link(f"{site.url}/x"), 3, 6).read() == DATA[3:6]
    assert reader.open(link(f"{site.url}/x"), 20).read() == b""
    assert (reader.head(link(f"{site.url}/x")).size, reader.head(link(f"{site.url}/x")).etag) == (10, "e")


def test_what_a_host_answers(site: Site) -> None:
    reader = pickle.loads(pickle.dumps(ShareLinkReader((), site.url)))
    site.answers = {
        "/old": answer(403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"),
        "/bad": answer(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"),
        "/none": answer(404),
        "/down": answer(503),
    }
    codes = {"/old": "link_expired", "/bad": "link_refused", "/none": "not_found", "/down": "unreachable"}
    for path, code in codes.items():
        assert failure(reader, link(site.url + path)).code == code


def test_an_answer_that_breaks_off(site: Site) -> None:
    def broken(request: BaseHTTPRequestHandler) -> None:
        request.send_response(206)
        request.send_header("Content-Length", "10")
        request.send_header("Content-Range", "bytes 0-9/10")
        request.end_headers()
        request.wfile.write(DATA[:4])
        request.close_connection = True

    site.answers = {"/x": broken}
    assert failure(ShareLinkReader((), site.url), link(f"{site.url}/x")).code == "unreachable"
    assert len(site.asked) == 3


def test_tls_is_checked_against_the_links_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    key, certificate = self_signed(tmp_path, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    site.server.socket = context.wrap_socket(site.server.socket, server_side=True)
    site.answers = {"/x": answer(200, DATA)}
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    reader = ShareLinkReader(["localhost", "127.0.0.1"])
    assert reader.open(link(f"https://localhost:{site.port}/x")).read() == DATA
    assert failure(reader, link(f"https://127.0.0.1:{site.port}/x")).code == "unreachable"
    monkeypatch.delenv("AWS_CA_BUNDLE")
    assert "certificate" in str(failure(ShareLinkReader(["localhost"]), link(f"https://localhost:{site.port}/x")))


def presigned(server: S3Server, bucket: str, key: str, version: str) -> str:
    # Not boto3.client: its default session keeps the first credentials that a process had.
    client = boto3.Session().client(
        "s3", endpoint_url=server.endpoint, config=Config(signature_version=version, s3={"addressing_style": "path"})
    )  # fmt: skip
    url: str = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=60)
    return url


def obs_style(server: S3Server, bucket: str, key: str, expires: int) -> str:
    """OBS's own link, by its documented rule; Ceph knows it with S3's name of the access key's parameter."""
    path = quote(f"/{bucket}/{key}")
    digest = hmac.new(server.secret_key.encode(), f"GET\n\n\n{expires}\n{path}".encode(), hashlib.sha1).digest()
    signature = quote(base64.b64encode(digest).decode(), safe="")
    return f"{server.endpoint}{path}?AWSAccessKeyId={server.access_key}&Expires={expires}&Signature={signature}"


def self_signed(folder: Path, name: str) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "key.pem", folder / "certificate.pem"
    form = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8
    paths[0].write_bytes(key.private_bytes(form, plain, serialization.NoEncryption()))
    paths[1].write_bytes(certificate.public_bytes(form))
    return paths
