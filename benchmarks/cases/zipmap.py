"""A classifier whose probabilities are a ZipMap, a map for each row, against the same one with an array."""

from __future__ import annotations

import io
from functools import partial

import numpy as np
import polars as pl

from benchmarks import agreement, data, models
from benchmarks.main import alone
from benchmarks.outcome import Outcome, compared
from benchmarks.workbench import Done, Workbench

ROWS = 1_000_000


def run(bench: Workbench) -> list[Outcome]:
    rows = bench.amount(ROWS, 8_000)
    for name, zipmap in (("zipmap", True), ("array", False)):
        bench.push(name, partial(models.write_classifier, zipmap=zipmap))

    def agree(ours: Done, array: Done) -> None:
        agreement.same(_probabilities(bench, ours), _probabilities(bench, array), "without a ZipMap")

    pairs = bench.works(
        lambda folder: bench.deploy("zipmap", folder),
        lambda folder: bench.deploy("array", folder),
        whole=bench.put("rows/", data.csv_files(rows)),
        one=bench.put("row/", [("0.csv", data.csv(1))]),
        agree=agree,
    )
    return [compared("a classifier with a ZipMap", "rows/s against the same without", 0.8, pairs, rows, "rows")]


def _probabilities(bench: Workbench, done: Done) -> np.ndarray:
    """Of all classes for each row, in whichever form, by the classes' names."""
    results = bench.results(done)
    tables = [pl.read_ndjson(io.BytesIO(results[name])) for name in sorted(results)]
    answers = pl.concat(tables).drop("label", "output_label", strict=False).to_series()
    if answers.dtype == pl.Struct:
        return answers.struct.unnest().select(sorted(answers.struct.fields)).to_numpy()
    return np.array(answers.to_list())


if __name__ == "__main__":
    alone(__file__)
