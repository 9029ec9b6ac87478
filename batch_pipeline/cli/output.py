"""How commands print: data to standard output as a table, text or JSON; messages to standard error."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")

# Control characters of a name or description must not reach the terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def say(text: str) -> None:
    """A message on one line of standard error."""
    click.echo(clean(text), err=True)


def warn(texts: Sequence[str]) -> None:
    for text in texts:
        say(f"warning: {text}")


def print_json(data: object) -> None:
    click.echo(json.dumps(data, ensure_ascii=False, indent=2, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Collection[str] = ()) -> None:
    """A table: drawn where standard output is a terminal, tab-separated with a header line elsewhere."""
    texts = [[_cell(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for line in (columns, *texts):
            click.echo("\t".join(line))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for line in texts:
        table.add_row(*(Text(text) for text in line))
    Console().print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """Names and values below one another; an object or a list stands as JSON."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        click.echo(f"{name:<{width}}  {_cell(value)}".rstrip())


def clean(text: str) -> str:
    return _CONTROL.sub(lambda found: ascii(found.group())[1:-1], text)


def duration(seconds: float | None) -> str:
    """Seconds as `4.2 s`, `3:05` or `1:02:03`; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | dict | list | tuple):
        return clean(json.dumps(value, ensure_ascii=False, default=str))
    return clean(str(value))
