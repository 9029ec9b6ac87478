"""Rows of mixed types, one in a hundred of them bad, against rows of numbers alone, of as many bytes."""

from __future__ import annotations

from benchmarks import data, models
from benchmarks.against_numbers import against_numbers
from benchmarks.main import alone
from benchmarks.outcome import Outcome
from benchmarks.workbench import Workbench


def run(bench: Workbench) -> list[Outcome]:
    return [
        against_numbers(
            bench, "CSV of mixed types, 1 % bad rows", "mixed", models.write_mixed, data.mixed, error_threshold=0.02
        )
    ]


if __name__ == "__main__":
    alone(__file__)
