"""What boto3, obstore and the disk raise, turned into our errors: one line that says what to check, no secrets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from batch_pipeline.errors import AccessDenied, ObjectNotFound, PreconditionFailed, StorageFailed

_NOT_FOUND = frozenset({"404", "NoSuchKey", "NoSuchVersion", "NotFound"})
_REFUSED = frozenset(
    {"401", "403", "AccessDenied", "AllAccessDisabled", "ExpiredToken", "Forbidden", "InvalidAccessKeyId"}
    | {"InvalidToken", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "TokenRefreshRequired"}
)
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
        raise _answered(str(error.response.get("Error", {}).get("Code", "")), subject, bucket, str(error)) from error
    except (HTTPClientError, NotConnected) as error:
        raise unreachable(subject, _one_line(error)) from error
    except (BotoCoreError, Boto3Error, ValueError) as error:
        raise _not_asked(error, subject) from error


@contextmanager
def obstore_errors(subject: object, *, bucket: str) -> Iterator[None]:
    """Raise our error for whatever obstore raises in the block."""
    from obstore import exceptions

    try:
        yield
    except (FileNotFoundError, exceptions.NotFoundError) as error:
        code = "NoSuchBucket" if "NoSuchBucket" in str(error) else "NoSuchKey"
        raise _answered(code, subject, bucket, "") from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise _denied(subject, str(error)) from error
    except (exceptions.PreconditionError, exceptions.AlreadyExistsError) as error:
        raise changed(subject) from error
    except exceptions.BaseError as error:
        text = str(error)
        if "HTTP error" in text or "error sending request" in text:
            raise unreachable(subject, "") from error
        raise StorageFailed(f"{subject}: the object store failed: {_server_code(text) or _first_line(text)}") from error


def changed(subject: object) -> PreconditionFailed:
    return PreconditionFailed(f"{subject} is not, or no longer, the version it was asked for as")


def not_found(subject: object) -> ObjectNotFound:
    return ObjectNotFound(f"{subject} does not exist")


def unreachable(subject: object, detail: str) -> StorageFailed:
    return StorageFailed(f"{subject}: the object store can't be reached{detail and f' ({detail})'}; {_CHECK_ENDPOINT}")


def _answered(code: str, subject: object, bucket: str, text: str) -> StorageFailed:
    if code == "NoSuchBucket":
        return ObjectNotFound(f"{subject}: there is no bucket {bucket!r}; check its name and the endpoint")
    if code in _NOT_FOUND:
        return not_found(subject)
    if code in _REFUSED:
        return _denied(subject, code)
    if code in _CONDITION:
        return changed(subject)
    return StorageFailed(f"{subject}: the object store failed: {_first_line(text)}")


def _denied(subject: object, text: str) -> AccessDenied:
    code = next((code for code in sorted(_REFUSED) if not code.isdigit() and code in text), "")
    if "External AWS credential provider" in text:
        return AccessDenied(f"{subject}: no usable credentials; {_NO_CREDENTIALS}")
    which = f" ({code})" if code else ""
    return AccessDenied(f"{subject}: the object store refused the credentials{which}; {_CHECK_CREDENTIALS}")


def _not_asked(error: Exception, subject: object) -> StorageFailed:
    """The request was never sent: no credentials, no such profile, an address that is none."""
    from botocore import exceptions

    missing = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound)
    lost = (exceptions.CredentialRetrievalError, exceptions.TokenRetrievalError, exceptions.SSOError)
    if isinstance(error, missing + lost):
        return AccessDenied(f"{subject}: no usable credentials ({_one_line(error)}); {_NO_CREDENTIALS}")
    return StorageFailed(f"{subject}: {_one_line(error)}")


def _server_code(text: str) -> str:
    """The `<Code>` of a store's XML answer."""
    return text.partition("<Code>")[2].partition("</Code>")[0]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _first_line(text: str, limit: int = 300) -> str:
    lines = text.strip().splitlines()
    return lines[0][:limit] if lines else ""
