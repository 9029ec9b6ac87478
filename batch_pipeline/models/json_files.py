"""Reading the JSON files of a model package."""

from __future__ import annotations

import json
from pathlib import Path

from batch_pipeline.documents import DEEPEST, is_too_deep
from batch_pipeline.errors import ModelRefused

LARGEST = 16 * 2**20
"""Bytes of a file that describes a model; what is larger is none."""
_TOO_DEEP = f"{{}} is nested too deeply: more than {DEEPEST} levels"


def read_file(file: Path) -> bytes:
    """The content of a small file of a package. Raises ModelRefused where it is not small."""
    with file.open("rb") as opened:
        content = opened.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ModelRefused(f"{file.name} is larger than {LARGEST // 2**20} MiB")
    return content


def read_json(content: bytes, name: str) -> object:
    """The JSON document in a file (UTF-8, a BOM tolerated). Raises ModelRefused naming the file."""
    try:
        document: object = json.loads(content.decode("utf-8-sig"))
        # JSON can spell half a character (`\ud800`), which no output could ever be written with.
        json.dumps(document, ensure_ascii=False).encode()
    except ValueError as error:
        raise ModelRefused(f"{name} is not JSON: {error}") from error
    except RecursionError:
        raise ModelRefused(_TOO_DEEP.format(name)) from None
    if is_too_deep(document):
        raise ModelRefused(_TOO_DEEP.format(name))
    return document
