"""How evenly files of skewed sizes are divided over nodes. No stopwatch: each run draws other sizes."""

from __future__ import annotations

import numpy as np

from batch_pipeline.division import Inputs, divide
from benchmarks import data
from benchmarks.main import alone
from benchmarks.outcome import Outcome
from benchmarks.workbench import Workbench

FILES, NODES = 1_000, 16


def run(bench: Workbench) -> list[Outcome]:
    ratios = tuple(_ratio(data.skewed_sizes(FILES, seed)) for seed in range(bench.runs))
    measure = "largest share over smallest, sizes known"
    return [Outcome(f"{FILES:,} files of skewed sizes over {NODES} nodes", measure, ratios, 1.05, at_least=False)]


def _ratio(sizes: list[int]) -> float:
    inputs = Inputs(np.array(sizes, np.int64), np.zeros(FILES, np.bool_))
    shares = np.zeros(NODES, np.int64)
    for pieces in divide(lambda: [inputs], NODES, 2**16):
        np.add.at(shares, pieces.node, inputs.sizes[pieces.input])
    return float(shares.max() / shares.min())


if __name__ == "__main__":
    alone(__file__)
