"""A long manifest: how long listing and dividing it take, and how much memory."""

from __future__ import annotations

from benchmarks import data, models
from benchmarks.main import alone
from benchmarks.outcome import Outcome
from benchmarks.workbench import Workbench

NODES = 8


def run(bench: Workbench) -> list[Outcome]:
    lines = bench.amount(1_000_000, 5_000)
    bench.push("mlp", models.write_mlp)
    bench.put("", [("all.manifest", data.manifest(lines))])
    plans = [next(bench.steps("mlp", "all.manifest", node_count=NODES)) for _ in range(bench.runs)]
    work = f"manifest of {lines:,} lines"
    seconds = tuple(float(done.usage.text) for done in plans)
    peaks = tuple(done.usage.peak / 2**20 for done in plans)
    return [
        Outcome(work, f"ingest and fan-out over {NODES} nodes", seconds, 20, at_least=False, unit="s"),
        Outcome(work, "peak memory of both", peaks, 400, at_least=False, unit="MiB"),
    ]


if __name__ == "__main__":
    alone(__file__)
