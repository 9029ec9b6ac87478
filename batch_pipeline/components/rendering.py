"""Dagster's `{{ … }}` in the values of a component. Our own placeholders, `{name}`, pass through it untouched."""

from __future__ import annotations

from typing import Any

import dagster as dg
from pydantic import BaseModel

_TEMPLATES = ("{{", "{%")


def rendered(context: dg.ResolutionContext, value: Any) -> Any:
    """The value as plain data, with what stands in `{{ … }}` filled in and what was not given left out.

    A text without any stays as it is written: Dagster itself would read the text "1" as a number.
    """
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_unset=True)
    if isinstance(value, dict):
        return {key: rendered(context.at_path(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rendered(context.at_path(index), item) for index, item in enumerate(value)]
    if isinstance(value, str) and any(mark in value for mark in _TEMPLATES):
        found = context.resolve_value(value)
        _check_names(context, value)
        return found
    return value


def _check_names(context: dg.ResolutionContext, text: str) -> None:
    """Dagster fills in nothing for a name that it does not know. Only where that stands alone it says so, and where."""
    from jinja2 import Environment, meta

    for name in sorted(meta.find_undeclared_variables(Environment(autoescape=True).parse(text))):
        context.resolve_value(f"{{{{ {name} }}}}")
