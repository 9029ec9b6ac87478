"""How many services were killed and how, and the table that says so in docs/reliability.md."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

COLUMNS = ("killed", "trials", "kills", "inputs", "inputs lost", "computed again", "differing", "left over")


@dataclass
class Figures:
    """Of all trials of one kind together. Each has asserted the zeros of the table."""

    trials: int = 0
    deaths: int = 0
    inputs: int = 0
    by_work: Counter[str] = field(default_factory=Counter)

    def count(self, work: str, deaths: int, inputs: int) -> None:
        self.trials += 1
        self.deaths += deaths
        self.inputs += inputs
        self.by_work[work] += 1


def write(page: Path, figures: Mapping[str, Figures]) -> None:
    """Of trials that all passed."""
    lines = [COLUMNS, ("---",) * len(COLUMNS)]
    for killed, of in figures.items():
        works = ", ".join(f"{count} {work}" for work, count in sorted(of.by_work.items()))
        lines.append((killed, f"{of.trials} ({works})", str(of.deaths), str(of.inputs), *"0000"))
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    marked = r"(<!-- begin of the figures -->\n).*?(<!-- end of the figures -->)"
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(marked, rf"\1\n{table}\n\n\2", text, flags=re.DOTALL), encoding="utf-8")
