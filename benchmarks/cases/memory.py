"""The peak memory of a compute node over one large CSV, and how it grows with the file."""

from __future__ import annotations

from benchmarks import data, models
from benchmarks.main import alone
from benchmarks.outcome import Outcome, mebibytes
from benchmarks.workbench import Workbench

ROW_BYTES = 240
SIZES = (2 * 10**8, 2 * 10**9)


def run(bench: Workbench) -> list[Outcome]:
    bench.push("mlp", models.write_mlp)
    peaks: list[list[int]] = []
    for size in SIZES:
        rows = bench.amount(size // ROW_BYTES, size // 10**5)
        folder = bench.put(f"{size}/", [("large.csv", data.csv(rows))])
        peaks.append([_peak(bench, folder) for _ in range(bench.runs)])
    small, large = peaks
    work = f"one CSV of {SIZES[1] / 1e9:g} GB"
    growths = tuple((after / before - 1) * 100 for before, after in zip(small, large, strict=True))
    return [
        Outcome(work, "peak memory of a node", tuple(peak / 2**20 for peak in large), 700, at_least=False, unit="MiB"),
        Outcome(
            work,
            f"growth of the peak from {SIZES[0] / 1e9:g} GB",
            growths,
            5,
            at_least=False,
            unit="%",
            ours=mebibytes(large),
            other=mebibytes(small),
        ),
    ]


def _peak(bench: Workbench, folder: str) -> int:
    steps = bench.steps("mlp", folder)
    next(steps)
    infer = next(steps)
    bench.clear(infer)
    return infer.usage.peak


if __name__ == "__main__":
    alone(__file__)
