"""Images through ResNet-50 against the best loop over images in memory."""

from __future__ import annotations

from benchmarks.images import against_memory
from benchmarks.main import alone
from benchmarks.networks import resnet50
from benchmarks.outcome import Outcome
from benchmarks.workbench import Workbench


def run(bench: Workbench) -> list[Outcome]:
    return against_memory(bench, "resnet50", resnet50, bench.amount(300, 4))


if __name__ == "__main__":
    alone(__file__)
