"""Images through SqueezeNet against the best loop over images in memory."""

from __future__ import annotations

from benchmarks.images import against_memory
from benchmarks.main import alone
from benchmarks.networks import squeezenet
from benchmarks.outcome import Outcome
from benchmarks.workbench import Workbench


def run(bench: Workbench) -> list[Outcome]:
    return against_memory(bench, "squeezenet", squeezenet, bench.amount(2000, 12))


if __name__ == "__main__":
    alone(__file__)
