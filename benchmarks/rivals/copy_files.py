"""Reads every object and writes it again, with nothing between: as fast as the store lets go."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import obstore

from benchmarks.rivals.store import bucket, names

AT_ONCE = 64
"""The best of 8 to 128. Threads take less time than as many tasks of asyncio."""


def main(store_name: str, folder: str, output: str) -> None:
    store = bucket(store_name)
    files: SimpleQueue[str | None] = SimpleQueue()

    def copy() -> None:
        while (file := files.get()) is not None:
            data = obstore.get(store, folder + file).bytes().to_bytes()
            obstore.put(store, f"{output}{file}_result.txt", data, use_multipart=False)

    for file in (*names(store, folder), *[None] * AT_ONCE):
        files.put(file)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for done in [threads.submit(copy) for _ in range(AT_ONCE)]:
            done.result()


if __name__ == "__main__":
    main(*sys.argv[1:])
