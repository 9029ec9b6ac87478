"""Tables in Dagster metadata: rows of any values, each cell a text that a page has room for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

CELL = 500
"""Characters of one cell of a table; longer texts are cut."""

Metadata = dict[str, Any]


def table(rows: Iterable[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Numbers stay numbers where a column has no other values; all else is a text. An empty column is left out."""
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row if row[column] is not None))
    numbers = {column for column in columns if all(_is_number(row.get(column)) for row in rows)}
    return dg.MetadataValue.table(
        records=[
            dg.TableRecord(
                {column: row.get(column) if column in numbers else cell(row.get(column)) for column in columns}
            )
            for row in rows
        ],
        schema=dg.TableSchema(
            [dg.TableColumn(column, "number" if column in numbers else "string") for column in columns]
        ),
    )


def cell(value: object) -> str:
    """The value as a text; JSON where it is no text itself."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= CELL else text[: CELL - 1] + "…"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
