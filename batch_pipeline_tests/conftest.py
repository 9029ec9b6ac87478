"""Object stores for the tests: moto, a Ceph RADOS Gateway, and fresh buckets in them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_RGW_UP = Path(__file__).parents[1] / "scripts" / "rgw-up"


@dataclass(frozen=True)
class S3Server:
    """A running object store and the environment that an S3 client needs for it."""

    kind: str
    endpoint: str
    access_key: str = "test"
    secret_key: str = "testsecret"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
        }


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    """moto's S3, in threads of the test process."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Server("moto", f"http://{host}:{port}")
    server.stop()


@pytest.fixture(scope="session")
def rgw_server() -> S3Server:
    """The Ceph RADOS Gateway that scripts/rgw-up starts, or finds running; it is left running."""
    if shutil.which("radosgw") is None and os.geteuid() != 0 and "CI" not in os.environ:
        pytest.skip("needs Ceph's radosgw, which only root can install")
    started = subprocess.run([_RGW_UP], capture_output=True, text=True, timeout=300, check=False)
    assert started.returncode == 0, started.stderr
    settings = dict(word.split("=", 1) for word in started.stdout.split()[1:])
    return S3Server("rgw", settings["AWS_ENDPOINT_URL_S3"])


@pytest.fixture(params=["moto", "rgw"])
def s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Each of the two servers in turn, with AWS_* set for it and nothing else of the machine's AWS settings."""
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    use_server(server, monkeypatch)
    return server


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """The name of a fresh bucket in `s3`."""
    return make_bucket()


@pytest.fixture
def moto_bucket(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a fresh bucket in moto alone, for tests of something other than storage."""
    use_server(moto_server, monkeypatch)
    return make_bucket()


@pytest.fixture
def rgw_bucket(rgw_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a fresh bucket in Ceph alone, which checks credentials and signatures (moto does not)."""
    use_server(rgw_server, monkeypatch)
    return make_bucket()


@pytest.fixture(params=["file", "moto", "rgw"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """A fresh, empty folder in each kind of store: what all of them must do alike is tested with it."""
    if request.param == "file":
        return Location("", f"{tmp_path}/"[1:], "file")
    use_server(request.getfixturevalue(f"{request.param}_server"), request.getfixturevalue("monkeypatch"))
    return Location(make_bucket(), "")


@pytest.fixture
def storage() -> Storage:
    """Storage as the environment of the test says, with local files allowed."""
    return Storage(allow_local=True)


def use_server(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point AWS_* at the server, and away from whatever this machine has."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def make_bucket() -> str:
    client: S3Client = Storage().connection.client
    name = f"test-{uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    return name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses a server is marked `server`, so that no test can forget to say so."""
    servers = {"moto_server", "rgw_server", "s3", "moto_bucket"}
    for item in items:
        uses = servers & set(getattr(item, "fixturenames", ()))
        parameter = getattr(item, "callspec", None)
        if uses or (parameter and parameter.params.get("folder") in ("moto", "rgw")):
            item.add_marker(pytest.mark.server)
