"""Whether what a declared service writes could come back as its input. Pure functions over texts and locations."""

from __future__ import annotations

import os
import re
from itertools import takewhile

from batch_pipeline.errors import InvalidParameters, Problem
from batch_pipeline.locations import Location, parse_folder
from batch_pipeline.triggers.template import placeholders_of

_VALUES = {
    "name": r"[A-Za-z0-9_\-\u4e00-\u9fff]{1,55}-[0-9a-f]{8}",
    "stem": ".*",
    "time": r"[0-9]{8}T[0-9]{6}Z",
    "etag8": "[0-9a-f]{8}",
}
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{(name|stem|time|etag8)\}")


def check_apart(
    watched: Location | None,
    output_path: str,
    *,
    state: Location,
    manifests: Location | None = None,
    allow_local: bool = False,
) -> None:
    """Raises InvalidParameters naming both places wherever something written could be found as input.

    `watched`: the folder a trigger watches, None where that is not known. `output_path`: the template of the services'
    output folders. `state` and `manifests`: where the trigger keeps its state and writes the manifests it gathers.
    """
    found = []
    if watched is not None and may_overlap(output_path, watched, allow_local=allow_local):
        what = f"{output_path} and the watched folder {watched} must be apart: results would become inputs"
        found.append(Problem("output_path", what))
    own = {"state folder": state, "manifests folder": manifests}
    for name, folder in own.items():
        if folder is None:
            continue
        if watched is not None and overlap(folder, watched):
            found.append(Problem("", f"the {name} {folder} and the watched folder {watched} must be apart"))
        if may_overlap(output_path, folder, allow_local=allow_local):
            what = f"{output_path} and the {name} {folder} must be apart: an output folder must be empty"
            found.append(Problem("output_path", what))
    if state == manifests:
        found.append(Problem("", f"the state folder and the manifests folder must be two, not both {state}"))
    if found:
        raise InvalidParameters(tuple(found))


def may_overlap(template: str, folder: Location, *, allow_local: bool = False) -> bool:
    """Whether some folder that the template of a location makes lies in `folder`, around it, or is it.

    A placeholder stands for what it can stand for: `s3://b/{name}/` and `s3://b/inbox/` are apart, since every name
    ends in hex digits. Raises InvalidLocation where the template is no location, or its bucket is not fixed.
    """
    # Placeholders are legal in keys as they are, so that the template is read as a location would be.
    made = parse_folder(template, allow_local=allow_local, what="output_path")
    if (made.scheme, made.bucket) != (folder.scheme, folder.bucket):
        return False
    ours, theirs = _segments(made), _segments(folder)
    return all(re.fullmatch(_pattern(one), other, re.DOTALL) for one, other in zip(ours, theirs, strict=False))


def overlap(one: Location, other: Location) -> bool:
    """Whether one of two folders lies in the other, or is it."""
    same_store = (one.scheme, one.bucket) == (other.scheme, other.bucket)
    return same_store and all(ours == theirs for ours, theirs in zip(_segments(one), _segments(other), strict=False))


def share_keys(one: Location, other: Location) -> bool:
    """Whether a key of one of two folders may be one of the other's, be it in another bucket."""
    return one.key.startswith(other.key) or other.key.startswith(one.key)


def _segments(folder: Location) -> list[str]:
    """The parts of a folder's key; of a local folder's real path, so that links don't hide where it is."""
    segments = folder.key.split("/")[:-1]
    if folder.scheme == "s3":
        return segments
    fixed = list(takewhile(lambda segment: not placeholders_of(segment), segments))
    real = os.path.realpath("/" + "/".join(fixed)).split("/")
    return [segment for segment in real if segment] + segments[len(fixed) :]


def _pattern(text: str) -> str:
    parts = []
    position = 0
    for found in _PLACEHOLDER.finditer(text):
        parts.append(re.escape(text[position : found.start()]))
        parts.append(_VALUES[found[1]] if found[1] else re.escape(found.group()[0]))
        position = found.end()
    return "".join((*parts, re.escape(text[position:])))
