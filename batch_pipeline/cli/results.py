"""`batch-pipeline results`: the answers of a service as a table, or written to a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batch_pipeline.cli.output import json_option, print_json, print_table, say

if TYPE_CHECKING:
    import pandas as pd


@click.command()
@click.argument("name")
@click.option("--head", type=click.IntRange(min=1), metavar="N", help="Only the first N rows; no more is read.")
@click.option(
    "--to",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a .parquet or .csv file.",
)
@json_option
def results(name: str, head: int | None, target: Path | None, as_json: bool) -> None:
    """Show the results of a service, or write them to a file.

    NAME is the service, or an output folder, s3://bucket/prefix/.
    """
    from batch_pipeline import api

    if target is not None:
        rows = api.export_results(name, target, head=head)
        if as_json:
            print_json({"file": str(target), "rows": rows})
        say(f"{rows} rows written to {target}")
        return
    frame = api.load_results(name, head=head)
    if as_json:
        _print_json(frame)
    else:
        right = [column for column in map(str, frame.columns) if column not in ("source", "error")]
        print_table([str(column) for column in frame.columns], _rows(frame), right=right)


def _rows(frame: pd.DataFrame) -> list[list[object]]:
    """Plain Python values, None where there is none."""
    columns = [_plain(frame[column]) for column in frame.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _plain(column: pd.Series) -> list[object]:
    import numpy as np
    import pandas as pd

    values = []
    for value in column:
        plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        values.append(None if plain is pd.NA or (isinstance(plain, float) and math.isnan(plain)) else plain)
    return values


def _print_json(frame: pd.DataFrame) -> None:
    names = [str(column) for column in frame.columns]
    print_json([dict(zip(names, row, strict=True)) for row in _rows(frame)])
