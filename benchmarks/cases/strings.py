"""Rows with columns of texts against rows of numbers alone, of as many bytes."""

from __future__ import annotations

from benchmarks import data, models
from benchmarks.against_numbers import against_numbers
from benchmarks.main import alone
from benchmarks.outcome import Outcome
from benchmarks.workbench import Workbench


def run(bench: Workbench) -> list[Outcome]:
    work = f"CSV with {data.TEXTS} columns of texts among {data.COLUMNS}"
    return [against_numbers(bench, work, "strings", models.write_strings, data.strings)]


if __name__ == "__main__":
    alone(__file__)
