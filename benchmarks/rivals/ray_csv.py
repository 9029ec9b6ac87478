"""Ray Data: read_csv, map_batches with an actor for each core, write_json."""

from __future__ import annotations

import os
import sys
from urllib.parse import urlsplit

import numpy as np
import pyarrow.csv
import pyarrow.fs
import ray

CORES = 2
COLUMNS = [f"x{place}" for place in range(30)]


class Model:
    """The model in an actor, on one thread: there is an actor for each core."""

    def __init__(self, path: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        with _filesystem().open_input_stream(path) as file:
            self._session = onnxruntime.InferenceSession(file.read(), options)
        (self._input,) = (one.name for one in self._session.get_inputs())

    def __call__(self, batch: pyarrow.Table) -> dict[str, np.ndarray]:
        rows = np.column_stack([batch[name].to_numpy().astype(np.float32) for name in COLUMNS])
        return {"y": self._session.run(None, {self._input: rows})[0].ravel()}


def _filesystem() -> pyarrow.fs.S3FileSystem:
    endpoint = urlsplit(os.environ["AWS_ENDPOINT_URL_S3"])
    return pyarrow.fs.S3FileSystem(
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        endpoint_override=endpoint.netloc,
        scheme=endpoint.scheme,
        region=os.environ["AWS_REGION"],
    )


def main(store_name: str, folder: str, output: str, model: str) -> None:
    # Arrow else sends checksums after the data, which Ceph does not take; workers inherit this.
    os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"
    ray.init(num_cpus=CORES, include_dashboard=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.read_csv(
        f"{store_name}/{folder}",
        filesystem=_filesystem(),
        read_options=pyarrow.csv.ReadOptions(column_names=COLUMNS),
    )
    answers = rows.map_batches(
        Model,
        fn_constructor_args=(f"{store_name}/{model}",),
        batch_size=4096,
        batch_format="pyarrow",
        concurrency=(1, CORES),
    )
    answers.write_json(f"{store_name}/{output}", filesystem=_filesystem())


if __name__ == "__main__":
    main(*sys.argv[1:])
