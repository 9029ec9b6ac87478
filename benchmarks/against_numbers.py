"""A CSV of any columns against the clean numeric one of the same bytes, both through the service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import data, models
from benchmarks.agreement import Disagreement
from benchmarks.outcome import Outcome, compared
from benchmarks.workbench import Done, Workbench

ROWS = 1_000_000


def against_numbers(
    bench: Workbench,
    work: str,
    model: str,
    write_package: Callable[[Path], None],
    block: Callable[[], list[str]],
    **parameters: Any,
) -> Outcome:
    """`block` makes the rows of the other file; the same MLP answers both."""
    rows = bench.amount(ROWS, 8_000)
    bench.push(model, write_package)
    bench.push("mlp", models.write_mlp)
    for folder, count in (("rows", rows), ("row", data.FILES)):
        bench.put(f"{folder}/{model}/", data.csv_files(count, block))
        bench.put(f"{folder}/mlp/", data.csv_files(count))

    def agree(*both: Done) -> None:
        for done in both:
            lines = sum(result.count(b"\n") for result in bench.results(done).values())
            if lines != rows:
                raise Disagreement(f"{work}: {lines} answers to {rows} rows")

    pairs = bench.works(
        lambda folder: bench.deploy(model, f"{folder}/{model}/", **parameters),
        lambda folder: bench.deploy("mlp", f"{folder}/mlp/"),
        whole="rows",
        one="row",
        agree=agree,
    )
    return compared(work, "rows/s against numbers alone in as many bytes", 0.5, pairs, rows, "rows")
