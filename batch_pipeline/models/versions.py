"""References to models (`name:version`), and which of two versions is the newer."""

from __future__ import annotations

import re

from packaging.version import InvalidVersion, Version

from batch_pipeline.errors import ModelRefused

_NAME = re.compile(r"[A-Za-z0-9_\u4e00-\u9fff][A-Za-z0-9_.\-\u4e00-\u9fff]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+\-]{0,63}")

VersionKey = tuple[int, Version, tuple[tuple[int, int, str], ...]]


def parse_ref(ref: str) -> tuple[str, str | None]:
    """`name:version` or `name` (then the version is None). Raises ModelRefused with the rule."""
    name, colon, version = ref.partition(":")
    if is_valid(name, version if colon else "0"):
        return name, version if colon else None
    raise ModelRefused(
        f"model: {ref!r} is no model; name:version is expected, such as digits:1.0.0 "
        f"(letters, digits, Chinese characters, `_`, `-` and `.`, at most 64 characters each)"
    )


def is_valid(name: str, version: str) -> bool:
    """Whether a folder of these names in the registry can be referred to."""
    return bool(_NAME.fullmatch(name) and _VERSION.fullmatch(version))


def version_key(version: str) -> VersionKey:
    """Sorts versions as versions: 1.10.0 after 1.9.0. Texts that are no versions come first, in natural order."""
    pieces = re.findall(r"(\d+)|(\D+)", version)
    natural = tuple((1, int(digits), "") if digits else (0, 0, text) for digits, text in pieces)
    try:
        return (1, Version(version), natural)
    except InvalidVersion:
        return (0, Version("0"), natural)
