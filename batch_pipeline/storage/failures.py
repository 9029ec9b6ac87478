"""What boto3, obstore and the disk raise, turned into our errors: one line that says what to check, no secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from batch_pipeline.errors import (
    AccessDenied,
    CredentialsRefused,
    ObjectNotFound,
    PreconditionFailed,
    StorageFailed,
    StorageFull,
    StorageRefused,
)

_STATUS = re.compile(r"status code: (\d{3})")
_NOT_FOUND = frozenset({"404", "NoSuchKey", "NoSuchVersion", "NotFound"})
_DENIED = frozenset({"403", "AccessDenied", "AllAccessDisabled", "Forbidden"})
_NO_CREDENTIALS_OF_OURS = frozenset(
    {"401", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "RequestTimeTooSkewed"}
    | {"TokenRefreshRequired", "Unauthorized"}
)
_FULL = frozenset(
    {"507", "InsufficientStorage", "InsufficientStorageSpace", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"}
    | {"XMinioStorageFull"}
)
_LATER = frozenset({408, 409, 425, 429})
"""Of the answers that blame who asks, those that say: not now."""
_BROKEN_ON_THE_WAY = frozenset(
    {"BadDigest", "IncompleteBody", "InvalidPart", "NoSuchUpload", "RequestTimeout", "RequestTimeoutException"}
    | {"SlowDown", "Throttling", "XAmzContentSHA256Mismatch"}
)
"""Answers that blame who asks for what the network did: a request that is made anew may work."""
_CONDITION = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})
_CHECK_CREDENTIALS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or the profile, and what they may do"
_NO_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_CHECK_ENDPOINT = "check AWS_ENDPOINT_URL_S3 and the network"


@contextmanager
def boto_errors(subject: object, *, bucket: str = "") -> Iterator[None]:
    """Raise our error for whatever boto3 raises in the block. `subject` is what was asked for."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
    from botocore.exceptions import ConnectionError as NotConnected

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        raise _answered(code, status, subject, bucket, str(error)) from error
    except (HTTPClientError, NotConnected) as error:
        if type(error) is HTTPClientError:
            # Whatever botocore did not expect: the text may repeat what was to be sent, credentials too.
            raise unreachable(subject, type(error.kwargs.get("error")).__name__) from None
        raise unreachable(subject, _one_line(error)) from error
    except (BotoCoreError, Boto3Error, ValueError) as error:
        raise _not_asked(error, subject) from error


@contextmanager
def obstore_errors(subject: object, *, bucket: str, conditional: bool = True) -> Iterator[None]:
    """Raise our error for whatever obstore raises in the block.

    Where no condition was made, a conflict is not one with another version but the store's: it may pass.
    """
    from obstore import exceptions

    try:
        yield
    except (FileNotFoundError, exceptions.NotFoundError) as error:
        code = "NoSuchBucket" if "NoSuchBucket" in str(error) else "NoSuchKey"
        raise _answered(code, 404, subject, bucket, "") from error
    except (exceptions.PreconditionError, exceptions.AlreadyExistsError) as error:
        if conditional:
            raise changed(subject) from error
        code = _server_code(str(error)) or "a conflict"
        raise StorageFailed(f"{subject}: the object store failed: {code}") from error
    except exceptions.BaseError as error:
        text = str(error)
        if "External AWS credential provider" in text:
            raise CredentialsRefused(f"{subject}: no usable credentials; {_NO_CREDENTIALS}") from error
        status = int(found[1]) if (found := _STATUS.search(text)) else 0
        refused = isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError)
        code = _server_code(text) or ("403" if refused else str(status or ""))
        if not code and "HTTP error" in text:
            raise unreachable(subject, "") from error
        raise _answered(code, status, subject, bucket, code or text) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        # obstore's Rust half met what it holds impossible. The class can't be imported, and is no Exception.
        raise StorageFailed(f"{subject}: the object store's client broke down over what it was to ask for") from None


def changed(subject: object) -> PreconditionFailed:
    return PreconditionFailed(f"{subject} is not, or no longer, the version it was asked for as")


def not_found(subject: object) -> ObjectNotFound:
    return ObjectNotFound(f"{subject} does not exist")


def unreachable(subject: object, detail: str) -> StorageFailed:
    return StorageFailed(f"{subject}: the object store can't be reached{detail and f' ({detail})'}; {_CHECK_ENDPOINT}")


def _answered(code: str, status: int, subject: object, bucket: str, text: str) -> StorageFailed:
    if code == "NoSuchBucket":
        return ObjectNotFound(f"{subject}: there is no bucket {bucket!r}; check its name and the endpoint")
    if code in _NOT_FOUND:
        return not_found(subject)
    if code in _DENIED | _NO_CREDENTIALS_OF_OURS:
        kind = CredentialsRefused if code in _NO_CREDENTIALS_OF_OURS else AccessDenied
        which = "" if code.isdigit() else f" ({code})"
        return kind(f"{subject}: the object store refused the credentials{which}; {_CHECK_CREDENTIALS}")
    if code in _CONDITION:
        return changed(subject)
    if code in _FULL:
        return StorageFull(f"{subject}: the bucket or the object store is full ({code}); make room, or raise its quota")
    if 400 <= status < 500 and status not in _LATER and code not in _BROKEN_ON_THE_WAY:
        return StorageRefused(f"{subject}: the object store refused: {_first_line(text)}")
    return StorageFailed(f"{subject}: the object store failed: {_first_line(text)}")


def _not_asked(error: Exception, subject: object) -> StorageFailed:
    """The request was never sent: no credentials, no such profile, an address that is none."""
    from botocore import exceptions

    missing = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound)
    lost = (exceptions.CredentialRetrievalError, exceptions.TokenRetrievalError, exceptions.SSOError)
    if isinstance(error, missing + lost):
        return CredentialsRefused(f"{subject}: no usable credentials ({_one_line(error)}); {_NO_CREDENTIALS}")
    return StorageFailed(f"{subject}: {_one_line(error)}")


def _server_code(text: str) -> str:
    """The `<Code>` of a store's XML answer."""
    return text.partition("<Code>")[2].partition("</Code>")[0]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _first_line(text: str, limit: int = 300) -> str:
    lines = text.strip().splitlines()
    return lines[0][:limit] if lines else ""
