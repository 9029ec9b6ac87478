"""Shows what was found: a table on the terminal, the same in Markdown, and a plot beside it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.outcome import Outcome

if TYPE_CHECKING:
    from benchmarks.counts import Count

PACKAGES = ("batch-pipeline", "dagster", "onnxruntime", "polars", "obstore", "pillow", "ray")
BEGIN, END = "<!-- begin of the last tables -->", "<!-- end of the last tables -->"
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
HEAD = ("work", "measure", "ours", "held against", "min", "median", "max", "reach", "reached")
COUNT_HEAD = ("work", "what", "counted", "at most")


def show(outcomes: Sequence[Outcome], counted: Sequence[Count]) -> None:
    console = Console(width=None if os.isatty(1) else 200)
    for head, rows in ((HEAD, _rows(outcomes)), (COUNT_HEAD, _count_rows(counted))):
        if rows:
            table = Table(*head, box=box.SIMPLE)
            for row in rows:
                table.add_row(*row)
            console.print(table)
    console.print(machine(), highlight=False)


def write(path: Path, outcomes: Sequence[Outcome], counted: Sequence[Count]) -> None:
    """The tables into a page, between its marks where it has them, and the plot as a PNG beside it."""
    picture = path.with_name("ratios.png")
    parts = [machine()]
    if outcomes:
        plot(picture, outcomes)
        parts += [_markdown(HEAD, _rows(outcomes)), f"![How far each comes]({picture.name})"]
    if counted:
        parts += ["What is repeatable, counted:", _markdown(COUNT_HEAD, _count_rows(counted))]
    text = "\n\n".join(parts)
    before, after = "", ""
    if path.exists():
        page = path.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after or chr(10)}", encoding="utf-8")


def machine() -> str:
    """The machine, the day, and the versions of what was measured."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = ", ".join(f"{name} {number}" for name in PACKAGES if (number := _version(name)))
    return (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}; {_processor()}, {cores} cores, {memory:.0f} GiB; "
        f"Python {platform.python_version()}, {found}; Ceph RADOS Gateway on loopback, on the same cores."
    )


def plot(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Each outcome as a dot, the median, on a line from its worst run to its best; 1 is what should be reached."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.45 * len(outcomes) + 1), layout="constrained")
    for place, outcome in enumerate(outcomes):
        colour = "tab:green" if outcome.reached else "tab:red"
        shares = sorted(outcome.share(value) for value in outcome.values)
        axes.plot((shares[0], shares[-1]), (place, place), color=colour, linewidth=2)
        axes.plot(outcome.share(outcome.median), place, "o", color=colour)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.minorticks_off()
    axes.set_yticks(range(len(outcomes)), [f"{one.work}\n{one.measure}" for one in outcomes], fontsize=7)
    axes.set_ylim(len(outcomes) - 0.5, -0.5)
    axes.set_xlabel("share of what should be reached (1: just reached; more is better)")
    axes.grid(axis="x", alpha=0.3, which="both")
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)


def _rows(outcomes: Iterable[Outcome]) -> list[tuple[str, ...]]:
    return [
        (
            one.work,
            one.measure,
            one.ours,
            one.other,
            *(one.say(value) for value in (min(one.values), one.median, max(one.values))),
            one.reach,
            "yes" if one.reached else "no",
        )
        for one in outcomes
    ]


def _count_rows(counted: Iterable[Count]) -> list[tuple[str, ...]]:
    return [(one.work, one.what, f"{one.value:,.4g}", f"{one.bound:,g}") for one in counted]


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
