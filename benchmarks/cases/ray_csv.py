"""The same rows against Ray Data, whole commands, with what it takes to start."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from benchmarks import agreement, data, models
from benchmarks.cases import NotHere
from benchmarks.cases.plain_csv import ROWS
from benchmarks.main import alone
from benchmarks.outcome import Outcome, Work, compared
from benchmarks.workbench import Done, Workbench, less


def run(bench: Workbench) -> list[Outcome]:
    if find_spec("ray") is None:
        raise NotHere("Ray Data is not installed: pip install -r requirements-bench.txt")
    rows = bench.amount(ROWS, 8_000)
    bench.push("mlp", models.write_mlp)
    folder = bench.put("rows/", data.csv_files(rows))
    one = bench.put("row/", [("0.csv", data.csv(1))])

    def both(folder: str) -> tuple[Done, Done]:
        return bench.deploy("mlp", folder), bench.rival("ray_csv", folder, "models/mlp/1/model.onnx")

    if not bench.quick:
        bench.clear(*both(one))
    pairs = []
    for number in range(bench.runs):
        ours, ray = both(folder)
        if number == 0:
            # Ray Data does not keep the order of rows.
            mine, theirs = (np.sort(agreement.numbers(bench.results(done))) for done in (ours, ray))
            agreement.same(mine, theirs, "Ray Data")
        bench.clear(ours, ray)
        # Ray's workers are no children of the command: what they took is not seen.
        pairs.append((less(ours, None), Work(ray.seconds)))
    return [compared(f"the same {rows:,} rows", "whole command against Ray Data", 5, pairs, rows, "rows")]


if __name__ == "__main__":
    alone(__file__)
