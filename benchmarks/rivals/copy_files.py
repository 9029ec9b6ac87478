"""Reads every object and writes it again, with nothing between: as fast as the store lets go."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator

import obstore
from obstore.store import S3Store

from benchmarks.rivals.store import bucket, names

AT_ONCE = 64
"""The best of 8 to 128."""


async def copy(store: S3Store, folder: str, output: str) -> None:
    files = iter(names(store, folder))
    await asyncio.gather(*(_copy_in_turn(store, folder, output, files) for _ in range(AT_ONCE)))


async def _copy_in_turn(store: S3Store, folder: str, output: str, files: Iterator[str]) -> None:
    for file in files:
        found = await obstore.get_async(store, folder + file)
        await obstore.put_async(store, f"{output}{file}_result.txt", await found.bytes_async())


if __name__ == "__main__":
    store_name, *folders = sys.argv[1:]
    asyncio.run(copy(bucket(store_name), *folders))
    # Python's own end meets obstore's threads, which may still let go of their last answers, and aborts now and then.
    os._exit(0)
