"""Reading the JSON files of a model package."""

from __future__ import annotations

import json

from batch_pipeline.errors import ModelRefused


def read_json(content: bytes, name: str) -> object:
    """The JSON document in a file (UTF-8, a BOM tolerated). Raises ModelRefused naming the file."""
    try:
        document: object = json.loads(content.decode("utf-8-sig"))
        # JSON can spell half a character (`\ud800`), which no output could ever be written with.
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{name} is not JSON: {error}") from error
    return document
