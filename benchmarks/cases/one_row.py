"""The whole command over one row on one node, against what it takes to import Dagster."""

from __future__ import annotations

from benchmarks.main import alone
from benchmarks.outcome import Outcome
from benchmarks.start import against_import
from benchmarks.workbench import Workbench


def run(bench: Workbench) -> list[Outcome]:
    return [against_import(bench, "one row, one node", nodes=1, bound=3)]


if __name__ == "__main__":
    alone(__file__)
