"""Reads the next chunk while the one before is worked on."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Executor, wait


def read_ahead(chunks: Iterator[bytes], readers: Executor) -> Generator[bytes]:
    """The same chunks, each asked for, on a thread of `readers`, before the one before it is wanted back."""
    coming = readers.submit(next, chunks, None)
    try:
        while (chunk := coming.result()) is not None:
            coming = readers.submit(next, chunks, None)
            yield chunk
    finally:
        if not coming.cancel():
            wait([coming])  # so that the caller may close what the chunks come from
