"""Many CSV files of one row against a program that only reads and writes as many objects."""

from __future__ import annotations

from benchmarks import data, models
from benchmarks.agreement import Disagreement
from benchmarks.main import alone
from benchmarks.outcome import Outcome, compared
from benchmarks.workbench import Done, Workbench


def run(bench: Workbench) -> list[Outcome]:
    files = bench.amount(10_000, 50)
    bench.push("mlp", models.write_mlp)

    def agree(*both: Done) -> None:
        written = [len(bench.files(done)) for done in both]
        if written != [files, files]:
            raise Disagreement(f"{files} files made {written} results")

    pairs = bench.works(
        lambda folder: bench.deploy("mlp", folder),
        lambda folder: bench.rival("copy_files", folder),
        whole=bench.put("files/", data.one_row_files(files)),
        one=bench.put("file/", data.one_row_files(1)),
        agree=agree,
    )
    measure = "files/s against reading and writing them, nothing between"
    return [compared(f"{files:,} CSV files of one row", measure, 0.9, pairs, files, "files")]


if __name__ == "__main__":
    alone(__file__)
