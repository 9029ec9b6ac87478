"""Two nodes on one machine of two cores against one node over the same rows."""

from __future__ import annotations

from dataclasses import replace

from benchmarks import agreement, data, models
from benchmarks.main import alone
from benchmarks.outcome import Outcome, compared
from benchmarks.workbench import Done, Workbench

ROWS = 3_000_000
"""What the nodes take to start varies by as much as a million rows take."""


def run(bench: Workbench) -> list[Outcome]:
    rows = bench.amount(ROWS, 8_000)
    bench.push("mlp", models.write_mlp)

    def agree(two: Done, one: Done) -> None:
        agreement.same(agreement.numbers(bench.results(two)), agreement.numbers(bench.results(one)), "one node")

    pairs = bench.works(
        lambda folder: bench.deploy("mlp", folder, node_count=2),
        lambda folder: bench.deploy("mlp", folder),
        whole=bench.put("rows/", data.csv_files(rows)),
        one=bench.put("row/", [("0.csv", data.csv(1))]),
        agree=agree,
    )
    # The fork server's children are not waited for by the command: their time is told to nobody.
    told = [(replace(two, cpu=None), one) for two, one in pairs]
    return [compared("two nodes on one machine", "rows/s against one node", 0.95, told, rows, "rows")]


if __name__ == "__main__":
    alone(__file__)
