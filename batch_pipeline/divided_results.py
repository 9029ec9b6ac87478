"""Puts the results of divided CSVs together, in storage, from what the nodes wrote of their parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from batch_pipeline.errors import NameTaken, ObjectNotFound, PreconditionFailed
from batch_pipeline.layout import OutputLayout
from batch_pipeline.ledger import WHOLE, append_composed
from batch_pipeline.node.job import UnitError, UnitResult
from batch_pipeline.plan import Plan
from batch_pipeline.storage import Storage

AT_ONCE = 8


def put_together(
    storage: Storage,
    layout: OutputLayout,
    plan: Plan,
    divided: Mapping[int, Sequence[UnitResult]],
    names: Mapping[int, str],
) -> list[UnitResult | UnitError]:
    """What came of each, recorded in the ledger: all but those of which a part is not there as the ledger has it.

    `divided`: the parts by the line of their input, in order; `names`: those of the results.
    """

    def compose(line: int) -> UnitResult | UnitError | None:
        return _compose(storage, layout, divided[line], names[line])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        made = [one for one in pool.map(compose, divided) if one is not None]
    append_composed(storage, layout, plan.division, made, attempt=plan.attempt)
    return made


def _compose(
    storage: Storage, layout: OutputLayout, parts: Sequence[UnitResult], name: str
) -> UnitResult | UnitError | None:
    """None where a part is not there as the ledger has it; an error where nothing can stand under that name."""
    line = parts[0].line
    try:
        pieces = [storage.head(layout.part(line, part.part)) for part in parts]
        if [piece.size for piece in pieces] != [part.size for part in parts]:
            return None
        size = storage.compose(layout.result(name), pieces).size
    except (ObjectNotFound, PreconditionFailed):
        return None
    except NameTaken as error:
        failed = error.of_result
        return UnitError(line, parts[0].digest, parts[0].part, failed.code, failed.message)
    rows = sum(part.rows or 0 for part in parts)
    failed_rows = sum(part.failed_rows or 0 for part in parts)
    return UnitResult(line, parts[0].digest, WHOLE, parts[0].etag, size, rows, failed_rows)
