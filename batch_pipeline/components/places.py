"""Where in its YAML file a problem of a component stands: file, line and key, in one line of text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster.components.core.decl import YamlDecl

from batch_pipeline.errors import InvalidParameters, Problem
from batch_pipeline.parameters import ServiceParameters


@contextmanager
def placed(context: dg.ComponentLoadContext) -> Iterator[None]:
    """Lets problems with a declaration say where they are. Raises them as `InvalidParameters` again."""
    try:
        yield
    except InvalidParameters as error:
        raise InvalidParameters(tuple(_placed(context, problem) for problem in error.problems)) from None
    except dg.DagsterInvalidDefinitionError as error:
        # A group or an owner, say, that Dagster does not take: it names them, but not where they stand.
        raise InvalidParameters((_placed(context, Problem("", " ".join(str(error).split()))),)) from error


def _placed(context: dg.ComponentLoadContext, problem: Problem) -> Problem:
    steps = [int(step) if step.isdigit() else step for step in problem.where.split(".") if step]
    if steps and steps[0] in ServiceParameters.model_fields and steps[0] != "name":
        steps = ["service", *steps]
    key = ".".join(str(step) for step in steps)
    return Problem(": ".join(part for part in (_line(context, steps), key) if part), problem.what)


def _line(context: dg.ComponentLoadContext, steps: list[str | int]) -> str:
    """`FILE:LINE`, of the nearest key that is there; nothing for a component that was made in Python."""
    decl = context.component_decl
    if not isinstance(decl, YamlDecl) or decl.source_tree is None:
        return ""
    position, _ = decl.source_tree.source_position_tree.lookup_closest_and_path(["attributes", *steps], None)
    return str(position)
