"""The command line of the benchmarks, of all of them or of one."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.cases import CASES, NotHere
from benchmarks.outcome import Outcome
from benchmarks.workbench import rgw, workbench

COUNTS = "counts"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure, and print the table.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (default: all): {', '.join((*CASES, COUNTS))}")
    parser.add_argument("--runs", type=int, default=3, help="runs of each side (default: 3)")
    parser.add_argument("--quick", action="store_true", help="over little data: whether it works, not how fast it is")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables, and a plot beside them, there")
    arguments = parser.parse_args(words)
    if unknown := sorted(set(arguments.names) - {*CASES, COUNTS}):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join((*CASES, COUNTS))}")
    _measure(arguments.names or (*CASES, COUNTS), arguments.runs, arguments.quick, arguments.markdown)


def alone(file: str) -> None:
    """What a case does when it is run as a program."""
    main([Path(file).stem, *sys.argv[1:]])


def _measure(names: Sequence[str], runs: int, quick: bool, markdown: Path | None) -> None:
    from benchmarks import counts, report

    # The bucket and the command at work are cleared away then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    server = rgw()
    outcomes: list[Outcome] = []
    counted: list[counts.Count] = []
    for name in names:
        began = time.monotonic()
        try:
            if name == COUNTS:
                with workbench(server, runs=1, quick=quick) as bench:
                    counted = counts.count_all(bench)
            else:
                outcomes += measure(name, server, runs=runs, quick=quick)
        except NotHere as missing:
            print(f"{name} is left out: {missing}", file=sys.stderr)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    report.show(outcomes, counted)
    if markdown is not None:
        report.write(markdown, outcomes, counted)


def measure(name: str, server: Mapping[str, str], *, runs: int, quick: bool) -> list[Outcome]:
    """One case, in a bucket and an instance of its own."""
    with workbench(server, runs=runs, quick=quick) as bench:
        outcomes: list[Outcome] = import_module(f"benchmarks.cases.{name}").run(bench)
        return outcomes
