"""What it takes to start: the whole command over next to nothing."""

from __future__ import annotations

from benchmarks import data, models
from benchmarks.outcome import Outcome, duration
from benchmarks.workbench import Workbench


def against_import(bench: Workbench, work: str, *, nodes: int, bound: float) -> Outcome:
    """`deploy --wait` over one row a node, against `python -c "import dagster"`."""
    bench.push("mlp", models.write_mlp)
    folder = bench.put("files/", data.one_row_files(nodes))

    def ours() -> float:
        return bench.deploy("mlp", folder, node_count=nodes).seconds

    def imported() -> float:
        return bench.python("-c", "import dagster").seconds

    if not bench.quick:
        ours(), imported()
    took, against = zip(*((ours(), imported()) for _ in range(bench.runs)), strict=True)
    return Outcome(
        work,
        'whole command against `python -c "import dagster"`',
        tuple(mine / other for mine, other in zip(took, against, strict=True)),
        bound,
        at_least=False,
        ours=duration(took),
        other=duration(against),
    )
