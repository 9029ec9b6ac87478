"""What Dagster says of a component that can't be loaded, in one line: file, line, key, and what is wrong."""

from __future__ import annotations

from dagster.components.resolved.errors import ResolutionException
from pydantic import ValidationError


def told(error: BaseException) -> str:
    """One line of text. Of several problems all are told."""
    if isinstance(error, ValidationError):
        return "; ".join(_placed(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors())
    if isinstance(error, ResolutionException):
        # Between the place and the reason stand the lines of the file around it.
        first, *_, last = [line.strip() for line in str(error).splitlines() if line.strip()]
        place, _, key = first.rpartition(" - ")
        return f"{place}: {key.removeprefix('attributes.')}: {last}"
    return " ".join(str(error).split())


def _placed(where: str, what: str) -> str:
    key, _, place = where.strip("`").rpartition(" at ")
    return ": ".join(part for part in (place, key.removeprefix("attributes."), what) if part)
