"""The service's own JSON records read back, with their types: a damaged one is told of by its name."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from batch_pipeline.errors import RecordDamaged
from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage

LARGEST = 16 * 2**20
"""Bytes of a record: four times what people may write into one."""

Count = Annotated[int, Field(ge=0, lt=2**62)]
"""A number of lines, inputs or bytes, with which can be counted on in 64 bits."""

Kind = TypeVar("Kind")


def read_record(kind: type[Kind], storage: Storage, location: Location, *, then: str) -> Kind:
    """The record of that dataclass. Raises ObjectNotFound, and RecordDamaged that says what happens once it is deleted.

    `then`: "all is computed again".
    """
    data = storage.read(location, end=LARGEST + 1)
    if len(data) > LARGEST:
        raise damaged(location, f"it has more than {LARGEST // 2**20} MiB", then)
    try:
        # The standard library's JSON has room for the NaN and the large integers of a request.
        record: Kind = _adapter(kind).validate_python(json.loads(data))  # type: ignore[arg-type]
    except ValidationError as error:
        raise damaged(location, what_is_wrong(error), then) from None  # it repeats what stands there
    except (ValueError, RecursionError) as error:
        raise damaged(location, f"no JSON: {error}", then) from error
    return record


def damaged(location: Location, why: str, then: str) -> RecordDamaged:
    """The error of a record that can't be read."""
    return RecordDamaged(f"{location} is damaged ({why[:200]}): delete it and run the service again; {then}")


def what_is_wrong(error: ValidationError) -> str:
    """The first of it, with its place; nothing of what stands there."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
