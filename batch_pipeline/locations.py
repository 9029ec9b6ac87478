"""Where things are: the texts a user may write for a folder, an object or a share link, and what they mean."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import SplitResult, unquote, unquote_plus, urlsplit

from batch_pipeline.errors import InvalidLocation, shortened

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_BUCKET_HOST = re.compile(
    r"(?P<bucket>.+)\.(?:obs\.(?:[a-z0-9-]+\.)?(?:myhuaweicloud|myhwclouds)\.com"
    r"|s3(?:[.-][a-z0-9-]+){0,2}\.amazonaws\.com(?:\.cn)?)"
)
_SIGNATURES = frozenset({"signature", "x-amz-signature"})
_SIGNING = _SIGNATURES | frozenset(
    {"accesskeyid", "awsaccesskeyid", "expires", "x-obs-security-token", "x-amz-security-token"}
    | {"x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-signedheaders"}
)
_SIGNED = re.compile(
    r"(?:[?&#]|%(?:25)*(?:3f|26|23))?(x-amz-|x-obs-)?(signature|security-token)(?:=|%(?:25)*3d)", re.IGNORECASE
)
"""Also where what should stand before it was lost, or where a whole link was encoded, once or more often."""
_BLANK = re.compile(r"[\x00-\x20\x7f]")
MAX_KEY_BYTES = 1024
LONGEST_HOST = 253
"""Characters, as of any name in the DNS."""
LONGEST_ADDRESS = 16 * 1024
"""Characters: several times what the longest key and its signature come to, percent-encoded."""
_MAX_NAME_BYTES, _MAX_PATH_BYTES = 255, 4095
_MOST_SHOWN = _MAX_PATH_BYTES + 300
"""Characters of a source: every location that there can be is shown whole."""
_MOST_SHOWN_BAD = 200


@dataclass(frozen=True, order=True)
class Location:
    """An object or a folder in a bucket (`s3`) or on the local disk (`file`).

    `key` is the exact object key, never percent-encoded. A folder's key is empty or ends in `/`. For `file`,
    `bucket` is empty and `key` is the absolute path without its leading `/`.
    """

    bucket: str
    key: str
    scheme: Literal["s3", "file"] = "s3"
    root: str | None = field(default=None, compare=False, repr=False)
    """The key of the folder that this was named below: no link in a local path may lead out of it."""

    @property
    def uri(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        """The file name: what follows the last `/`."""
        return self.key.rpartition("/")[2]

    @property
    def is_folder(self) -> bool:
        return not self.key or self.key.endswith("/")

    @property
    def unusable(self) -> tuple[str, str] | None:
        """The code and the reason why there can be no object here; None where there can be one."""
        size = len(_bytes(self.key))
        if self.scheme == "s3":
            too_long = "name_too_long", f"its key would have {size} bytes; {MAX_KEY_BYTES} is the most"
            return too_long if size > MAX_KEY_BYTES else None
        parts = self.key.removesuffix("/").split("/")
        if size > _MAX_PATH_BYTES or any(len(_bytes(part)) > _MAX_NAME_BYTES for part in parts):
            return "name_too_long", "its name would be longer than a disk takes"
        if "\0" in self.key or (self.key and any(part in ("", ".", "..") for part in parts)):
            return "bad_name", "its path would have an empty, '.' or '..' part, which means something else on a disk"
        return None

    def child(self, relative: str) -> Location:
        """The object at `relative` below this folder."""
        return Location(self.bucket, self.key + relative, self.scheme, self.key if self.root is None else self.root)

    def __str__(self) -> str:
        """For messages, on one line whatever the key holds; `uri` is exact."""
        return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in self.uri)


@dataclass(frozen=True)
class ShareLink:
    """A signed `https` address of one object of someone else's.

    `url` is byte for byte what the manifest said; it holds a secret, so neither `str` nor `repr` shows it.
    """

    url: str

    def __repr__(self) -> str:
        return "ShareLink(…)"

    @property
    def identity(self) -> str:
        """The address without its signing parameters: the same for a renewed link to the same object."""
        parts = urlsplit(self.url)
        kept = [pair for pair in parts.query.split("&") if pair and _parameter_name(pair) not in _SIGNING]
        return f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path}" + ("?" + "&".join(kept) if kept else "")

    @property
    def name(self) -> str:
        """The file name, percent-decoded: what follows the path's last `/`."""
        return unquote(urlsplit(self.url).path).rpartition("/")[2]

    @property
    def host(self) -> str:
        """The host, in lower case, without the port."""
        return (urlsplit(self.url).hostname or "").lower()

    @property
    def expires(self) -> datetime | None:
        """When the link says its signature runs out; None where it does not say."""
        given = _parameters(self.url)
        try:
            if "x-amz-date" in given and "x-amz-expires" in given:
                signed = datetime.strptime(given["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return signed + timedelta(seconds=int(given["x-amz-expires"]))
            return datetime.fromtimestamp(int(given["expires"]), UTC) if "expires" in given else None
        except (ValueError, OverflowError, OSError):
            return None


Source = Location | ShareLink


def source_name(source: Source) -> str:
    """The file name of an input, decoded; what its result is named after."""
    return source.name


def parse_location(text: str, *, allow_local: bool = False, what: str = "location") -> Location:
    """Read `s3://`, `obs://`, `/bucket/key`, an unsigned OBS or S3 address, or (where allowed) `file:///`.

    `what` names the thing in messages. Raises InvalidLocation; a query is never part of its message.
    """
    source = _parse(text, allow_local, what)
    if isinstance(source, ShareLink):
        raise _invalid(text, what, "is a share link, which only an input manifest may hold; write s3://bucket/key")
    return source


def parse_folder(text: str, *, allow_local: bool = False, what: str = "folder") -> Location:
    """Like parse_location, for a folder: a missing `/` at the end is added."""
    location = parse_location(text, allow_local=allow_local, what=what)
    return location if location.is_folder else location.child("/")


def parse_source(text: str, *, allow_local: bool = False, what: str = "source") -> Source:
    """Read the `source` of a manifest line: an object, or a share link. Raises InvalidLocation, also for a folder."""
    source = _parse(text, allow_local, what)
    if not source.name:
        raise _invalid(text, what, "names a folder; it must name one file")
    return source


def _parse(text: str, allow_local: bool, what: str) -> Source:
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() in ("s3", "obs"):
        return _in_bucket(text, *_halves(rest), what=what)
    if separator and scheme.lower() in ("http", "https"):
        return _address(text, what)
    if separator and scheme.lower() == "file":
        return _local(text, rest, allow_local, what)
    if text.startswith("/"):
        return _in_bucket(text, *_halves(text[2:] if text.startswith("//") else text[1:]), what=what)
    raise _invalid(text, what, "is no location; write s3://bucket/key")


def _halves(text: str) -> tuple[str, str]:
    bucket, _, key = text.partition("/")
    return bucket, key


def _in_bucket(text: str, bucket: str, key: str, *, what: str) -> Location:
    if not _BUCKET.fullmatch(bucket):
        raise _invalid(text, what, "has no valid bucket name; write s3://bucket/key")
    _check_key(text, key, what)
    return Location(bucket, key)


def _check_key(text: str, key: str, what: str) -> None:
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise _invalid(text, what, "is not valid Unicode") from None
    if size > MAX_KEY_BYTES:
        raise _invalid(text, what, f"has a key of {size} bytes; {MAX_KEY_BYTES} is the most")


def _local(text: str, rest: str, allow_local: bool, what: str) -> Location:
    if not allow_local:
        raise _invalid(text, what, "is a local file, which this deployment does not allow; write s3://bucket/key")
    segments = rest[1:].removesuffix("/").split("/")
    if not rest.startswith("/") or "\0" in rest or any(part in ("", ".", "..") for part in segments):
        raise _invalid(text, what, "must be an absolute path with no empty, '.' or '..' part: file:///folder/file")
    return Location("", rest[1:], "file")


def _address(text: str, what: str) -> Source:
    if _BLANK.search(text):
        raise _invalid(text, what, "has a blank or control character in it; percent-encode it")
    try:
        parts = urlsplit(text)
        host, _ = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise _invalid(text, what, "is no valid address") from None
    if not host or "@" in parts.netloc:
        raise _invalid(text, what, "is no valid address: it needs a host, and no user or password")
    if len(host) > LONGEST_HOST:
        raise _invalid(text, what, f"has a host of {len(host)} characters; {LONGEST_HOST} is the most")
    if len(text) > LONGEST_ADDRESS:
        raise _invalid(text, what, f"has {len(text)} characters; {LONGEST_ADDRESS} is the most")
    if _SIGNATURES & _parameters(text).keys():
        return ShareLink(text)
    return _unsigned(text, parts, host, what)


def _unsigned(text: str, parts: SplitResult, host: str, what: str) -> Location:
    found = _BUCKET_HOST.fullmatch(host)
    if parts.scheme.lower() != "https" or not found:
        raise _invalid(
            text, what, "is neither a signed share link nor an OBS or S3 address with the bucket in its host"
        )
    if parts.query or parts.fragment:
        raise _invalid(text, what, "has a query or fragment but no signature; write s3://bucket/key")
    try:
        key = unquote(parts.path.removeprefix("/"), errors="strict")
    except UnicodeDecodeError:
        raise _invalid(text, what, "is not percent-encoded UTF-8") from None
    return _in_bucket(text, found["bucket"], key, what=what)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _parameters(url: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in urlsplit(url).query.split("&") if pair]
    return {unquote_plus(name).lower(): unquote_plus(value) for name, _, value in pairs}


def _parameter_name(pair: str) -> str:
    return unquote_plus(pair.partition("=")[0]).lower()


def _invalid(text: str, what: str, why: str) -> InvalidLocation:
    return InvalidLocation(f"{what} {shortened(shown(text), _MOST_SHOWN_BAD)!r} {why}")


def shown(text: str) -> str:
    """What a user wrote for a location, without what may be secret in it, also where it is misspelt; not endless."""
    own = text.lower().startswith(("s3://", "obs://", "file://", "/"))
    signed = _SIGNED.search(text)
    if own and not signed:
        return shortened(text, _MOST_SHOWN)
    unsigned = text[: signed.start()] if signed else text
    scheme, separator, rest = re.split(r"[?#]", unsigned, maxsplit=1)[0].partition("://")
    host, slash, path = rest.partition("/")
    return shortened(f"{scheme}{separator}{host if own else host.rpartition('@')[2]}{slash}{path}", _MOST_SHOWN)
