"""Whole files, one after the other: polars in, one call of ONNX Runtime, polars out; two threads read and write."""

from __future__ import annotations

import io
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import obstore
import onnxruntime
import polars as pl

from benchmarks.rivals.store import bucket, names

BATCH = 8192
"""Rows a call: larger ones are no faster, smaller ones slower."""


def main(store_name: str, folder: str, output: str, model: str) -> None:
    store = bucket(store_name)
    session = onnxruntime.InferenceSession(obstore.get(store, model).bytes().to_bytes())
    (name,) = (one.name for one in session.get_inputs())

    def read(file: str) -> bytes:
        return obstore.get(store, folder + file).bytes().to_bytes()

    def write(file: str, data: bytes) -> None:
        obstore.put(store, f"{output}{file}_result.txt", data)

    with ThreadPoolExecutor(2) as threads:
        files = names(store, folder)
        ahead = deque((file, threads.submit(read, file)) for file in files[:2])
        written = []
        for following in [*files[2:], None, None][: len(files)]:
            file, data = ahead.popleft()
            answers = _answers(session, name, data.result())
            if following is not None:
                ahead.append((following, threads.submit(read, following)))
            written.append(threads.submit(write, file, answers))
        for done in written:
            done.result()


def _answers(session: onnxruntime.InferenceSession, name: str, data: bytes) -> bytes:
    table = pl.read_csv(data, has_header=False, schema={f"x{place}": pl.Float32 for place in range(30)})
    rows = table.to_numpy(order="c")
    parts = [session.run(None, {name: rows[start : start + BATCH]})[0] for start in range(0, len(rows), BATCH)]
    lines = io.BytesIO()
    pl.DataFrame({"y": np.concatenate(parts).ravel()}).write_ndjson(lines)
    return lines.getvalue()


if __name__ == "__main__":
    main(*sys.argv[1:])
