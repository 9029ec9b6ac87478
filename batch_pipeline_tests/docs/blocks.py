"""The fenced blocks of README and docs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Block:
    """One fenced block: the page it stands on, its language (may be empty) and its text."""

    page: str
    language: str
    text: str


def blocks(language: str, page: str | None = None) -> list[Block]:
    """All blocks of that language, of one page or of all."""
    found = [
        Block(path.name, *match.groups())
        for path in PAGES
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    ]
    return [block for block in found if block.language == language and page in {None, block.page}]


def commands() -> list[tuple[str, str]]:
    """Every `batch-pipeline …` line of the blocks that have no language, with its page."""
    return [
        (block.page, line.removeprefix("$ ").strip())
        for block in blocks("")
        for line in block.text.splitlines()
        if line.removeprefix("$ ").startswith("batch-pipeline ")
    ]
