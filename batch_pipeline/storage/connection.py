"""The clients behind a bucket: boto3 for keys, listings and conditions, obstore for data; one set of credentials."""

from __future__ import annotations

import logging
import os
import re
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from batch_pipeline.errors import BatchPipelineError, CredentialsRefused, StorageRefused
from batch_pipeline.storage.credentials import usable_credentials
from batch_pipeline.storage.failures import boto_errors
from batch_pipeline.storage.retries import check_permission, pause
from batch_pipeline.storage.timeouts import USUAL, Timeouts

if TYPE_CHECKING:
    from boto3.session import Session
    from botocore.config import Config
    from botocore.loaders import Loader
    from mypy_boto3_s3 import S3Client
    from obstore.store import S3Credential, S3Store

_CONNECT_SECONDS = 2
_REQUEST_SECONDS = 3600
"""For one request as a whole, so that a trickle ends too. Short of that a slow line is none that is dead: that one is
noticed by how long no byte comes."""
_TRIED_AGAIN = (429, 500, 502, 503, 504)
_CONFLICT = 409
_NEVER_IN_CONFLICT = frozenset({"PutObject", "UploadPart"})
"""Without a condition these can be in nobody's way for long: where the store says so, it means not now."""
_BUCKET_IN_HOST = (".amazonaws.com", ".amazonaws.com.cn", ".myhuaweicloud.com", ".myhwclouds.com")
_REPEATED_KEYS = {
    "CreateMultipartUpload": re.compile(rb"<Key>.*?</Key>", re.DOTALL),
    "CompleteMultipartUpload": re.compile(rb"<(Key|Location)>.*?</\1>", re.DOTALL),
    "ListMultipartUploads": re.compile(rb"<(NextKeyMarker)>.*?</\1>", re.DOTALL),
}
"""What nobody reads of the answers: XML, as these stores write it, has no room for every character of a key."""
_CREDENTIALS_LIVE = timedelta(minutes=10)
"""obstore asks for new ones five minutes before: had they less, ten times a second, while all requests wait."""
_ENDPOINT = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?", re.IGNORECASE)
_NO_CREDENTIALS = "no credentials for the object store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


_log = logging.getLogger(__name__)


class Connection:
    """Lazily made clients for one deployment's object store. Nothing is contacted before it is needed."""

    def __init__(self, timeouts: Timeouts = USUAL) -> None:
        self._timeouts = timeouts
        self._stores: dict[str, S3Store] = {}
        self._lock = Lock()

    @cached_property
    def session(self) -> Session:
        import boto3
        from botocore.session import get_session

        from batch_pipeline.storage.listings import ListingParsers

        with self._lock, boto_errors("the object store"):
            core = get_session()
            core.register_component("response_parser_factory", ListingParsers(_time))
            core.register_component("data_loader", _descriptions(core.get_config_variable("data_path")))
            return boto3.Session(botocore_session=core, region_name=os.environ.get("AWS_REGION") or None)

    @cached_property
    def region(self) -> str:
        return self.session.region_name or "us-east-1"

    @cached_property
    def client(self) -> S3Client:
        """The boto3 client; thread-safe, as boto3's clients are. Raises StorageFailed where there is none to be had."""
        _check_endpoint()
        client = self._make_client("path")
        if _takes_bucket_in_host(client.meta.endpoint_url):
            client = self._make_client("virtual")
        # Each time: credentials that refresh themselves are other ones later.
        client.meta.events.register("before-sign.s3", self._check_credentials)
        client.meta.events.register("before-send.s3", _check_permission)
        client.meta.events.register("needs-retry.s3", self._note)  # type: ignore[arg-type]  # a pause comes back
        for operation in _REPEATED_KEYS:
            # By this name it comes before botocore's own look at the answer, which takes what is no XML for a failure.
            client.meta.events.register_first(f"before-parse.*.{operation}", _without_key)
        return client

    def _make_client(self, addressing_style: Literal["path", "virtual"]) -> S3Client:
        from botocore.config import Config

        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=self._timeouts.read_seconds,
            retries={"mode": "standard", "total_max_attempts": self._timeouts.attempts},
            max_pool_connections=32,
            signature_version="s3v4",
            s3={"addressing_style": addressing_style},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        session, region = self.session, self.region
        with self._lock, boto_errors("the object store"):
            return session.client("s3", region_name=region, config=config)

    @property
    def attempts(self) -> int:
        """How often anything is asked for, at most."""
        return self._timeouts.attempts

    def _note(
        self, attempts: int, operation: Any, response: Any, caught_exception: Any, request_dict: Any, **_: Any
    ) -> float | None:
        """Says in the log what boto3 is about to try again; a conflict it would not, and for that one gets a pause."""
        status = 0 if response is None else response[0].status_code
        conflict = (
            status == _CONFLICT
            and operation.name in _NEVER_IN_CONFLICT
            and not {"If-Match", "If-None-Match"} & set(request_dict["headers"])
        )
        again = (caught_exception is not None and not isinstance(caught_exception, BatchPipelineError)) or (
            conflict or status in _TRIED_AGAIN
        )
        if not again or attempts >= self.attempts:
            return None
        what = f"HTTP {status}" if status else type(caught_exception).__name__
        _log.warning("%s: attempt %d of %d: %s", operation.name, attempts, self.attempts, what)
        return pause(attempts) if conflict else None

    def other_client(self, service: str, region: str | None, config: Config) -> Any:
        """boto3's client of another service, with the same credentials. Raises what boto3 raises.

        `Any`, as the types of each service are a package of their own.
        """
        session, known = self.session, self.region
        with self._lock:
            return session.client(service, region_name=region or known, config=config)  # type: ignore[call-overload]

    @property
    def endpoint(self) -> str:
        """The store's address: the environment's, the profile's, or the region's of AWS."""
        return self.client.meta.endpoint_url

    def store(self, bucket: str) -> S3Store:
        """The obstore client of a bucket."""
        found = self._stores.get(bucket)
        return found if found is not None else self._stores.setdefault(bucket, self._make_store(bucket))

    def _make_store(self, bucket: str) -> S3Store:
        from obstore.store import S3Store

        # What it raises within obstore comes back as text, and late.
        self._credentials()
        parts = urlsplit(self.endpoint)
        in_host = _takes_bucket_in_host(self.endpoint) and "." not in bucket
        region = self._bucket_region(bucket)
        host = parts.netloc.replace(f".{self.region}.", f".{region}.")
        endpoint = (
            f"{parts.scheme}://{bucket}.{host}{parts.path}" if in_host else self.endpoint.replace(parts.netloc, host)
        )
        return S3Store(
            bucket,
            endpoint=endpoint,
            region=region,
            virtual_hosted_style_request=in_host,
            client_options={
                "allow_http": True,
                "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                "read_timeout": timedelta(seconds=self._timeouts.read_seconds),
                "timeout": timedelta(seconds=_REQUEST_SECONDS),
            },
            # It retries neither every body that breaks off nor aloud: `persistent` does both.
            retry_config={"max_retries": 0},
            credential_provider=self._credentials,
        )

    def _bucket_region(self, bucket: str) -> str:
        """AWS wants each bucket's own region in the signature; any other store takes what it is told."""
        if not _host(self.endpoint).endswith((".amazonaws.com", ".amazonaws.com.cn")):
            return self.region
        with boto_errors(f"bucket {bucket}", bucket=bucket):
            return self.client.head_bucket(Bucket=bucket).get("BucketRegion") or self.region

    def _check_credentials(self, **_: Any) -> None:
        usable_credentials(self.session)

    def _credentials(self) -> S3Credential:
        """What obstore signs with: boto3's own credentials, which refresh themselves. Asked again every few minutes."""
        with boto_errors("the object store"):
            frozen = usable_credentials(self.session)
            if frozen is None:
                raise CredentialsRefused(_NO_CREDENTIALS)
        return {
            "access_key_id": frozen.access_key or "",
            "secret_access_key": frozen.secret_key or "",
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS_LIVE,
        }


def read_descriptions() -> None:
    """Reads botocore's descriptions of S3 ahead of the first client: forked processes have them then."""
    found = _descriptions(None)
    for name in ("endpoints", "partitions", "sdk-default-configuration"):
        found.load_data_with_path(name)
    for kind in ("service-2", "endpoint-rule-set-1"):
        found.load_service_model("s3", kind, api_version=None)


@cache
def _descriptions(path: str | None) -> Loader:
    """botocore's descriptions of services, read once a process where it would once a session."""
    from botocore.loaders import create_loader

    loader: Loader = create_loader(path)
    return loader


def _check_endpoint() -> None:
    """Raises StorageRefused that names the variable. What is in it is not repeated: there may be a password."""
    variable = next((name for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if os.environ.get(name)), None)
    if variable is not None and not _is_endpoint(os.environ[variable]):
        raise StorageRefused(
            f"{variable} is no address of an object store: write http:// or https://, its host and, if need be, "
            "a port, as in https://obs.example.com:8443"
        )


def _is_endpoint(text: str) -> bool:
    try:
        return _ENDPOINT.fullmatch(text) is not None and urlsplit(text).port != 0 and bool(urlsplit(text).hostname)
    except ValueError:  # a port that is none, a bracket that is not closed
        return False


def _check_permission(**_: Any) -> None:
    """Before each request, and each time that botocore tries it again."""
    check_permission()


def _without_key(operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
    response_dict["body"] = _REPEATED_KEYS[operation_model.name].sub(b"", response_dict["body"])


def _host(endpoint: str) -> str:
    return (urlsplit(endpoint).hostname or "").lower()


def _takes_bucket_in_host(endpoint: str) -> bool:
    return _host(endpoint).endswith(_BUCKET_IN_HOST)


def _time(value: Any) -> datetime:
    """A time in an answer of the store: ISO 8601 with its zone in listings, of any form elsewhere."""
    from botocore.utils import parse_timestamp

    if isinstance(value, str) and value.endswith("Z") and "T" in value:
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    return parse_timestamp(value)
