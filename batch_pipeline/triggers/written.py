"""Types of what triggers write down as JSON, so that what is read back is what it is taken for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from batch_pipeline.locations import Location
from batch_pipeline.records import Count

Number = Annotated[int, Field(ge=0, lt=10**8)]
"""Of a manifest: more digits than that its name has not."""
Scheme = Literal["s3", "file"]
Place = tuple[str, str, Scheme]
"""Bucket, key and scheme."""
Version = tuple[str, str, Scheme, Count, str, AwareDatetime]
"""Of an object: its place, size, ETag and time."""
Digest = Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{32}\z")]


def located(bucket: str, key: str, scheme: Scheme) -> Location:
    """The location that was written down. Raises ValueError where there can be no object."""
    location = Location(bucket, key, scheme)
    if location.unusable is not None or bool(bucket) != (scheme == "s3"):
        raise ValueError("there can be no object of that name")
    return location
