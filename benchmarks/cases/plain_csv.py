"""Rows of numbers against a script written by hand: whole files, polars in and out, ONNX Runtime."""

from __future__ import annotations

from benchmarks import agreement, data, models
from benchmarks.main import alone
from benchmarks.outcome import Outcome, compared
from benchmarks.workbench import Done, Workbench

ROWS = 1_000_000


def run(bench: Workbench) -> list[Outcome]:
    rows = bench.amount(ROWS, 8_000)
    bench.push("mlp", models.write_mlp)

    def agree(ours: Done, plain: Done) -> None:
        agreement.same(agreement.numbers(bench.results(ours)), agreement.numbers(bench.results(plain)), "plain script")

    pairs = bench.works(
        lambda folder: bench.deploy("mlp", folder),
        lambda folder: bench.rival("plain_csv", folder, "models/mlp/1/model.onnx"),
        whole=bench.put("rows/", data.csv_files(rows)),
        one=bench.put("row/", [("0.csv", data.csv(1))]),
        agree=agree,
    )
    work = f"CSV, {rows:,} rows × {data.COLUMNS} numbers in {data.FILES} files, MLP 64 × 64"
    return [compared(work, "rows/s against a script written by hand", 1.0, pairs, rows, "rows")]


if __name__ == "__main__":
    alone(__file__)
