"""The asset checks of a service: what they are called, what they mean, and how a summary is judged by them.

Only `every_input_accounted_for` blocks. What else is wrong with answers is a warning: they are written, and a person
must look at them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dagster as dg

from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.earlier import Earlier
from batch_pipeline.orchestration.names import ACCOUNTED, INFERENCE_RESULTS, OUTPUT_MANIFEST
from batch_pipeline.orchestration.tables import Metadata, table
from batch_pipeline.parameters import ServiceParameters

if TYPE_CHECKING:
    from batch_pipeline.review.report import Review
    from batch_pipeline.summary import Summary

THRESHOLD = "errors_within_threshold"
SCHEMA = "answers_match_schema"
STABLE = "predictions_stable"
NOT_EMPTY = "no_empty_result"

_STABLE = """The answers are distributed as those of the run before: no value has a population stability index (PSI)
above 0.25, and above what chance makes of so few. A partition of a declared service is also compared with the newest
run of another partition."""

CHECKS = {
    ACCOUNTED: (OUTPUT_MANIFEST, "inputs = succeeded + failed, as storage says: no input is lost."),
    THRESHOLD: (INFERENCE_RESULTS, "No larger share of inputs, nor of rows, failed than `error_threshold` allows."),
    SCHEMA: (INFERENCE_RESULTS, "A sample of the answers is as the response schema of the model's API says."),
    STABLE: (INFERENCE_RESULTS, _STABLE),
    NOT_EMPTY: (INFERENCE_RESULTS, "No input that has content has a result without a byte."),
}
"""The asset that each is shown on, and what it says."""
_ERRORS = {ACCOUNTED, THRESHOLD}
"""Those whose failure is the service's, too."""


def check_specs(declaration: Declaration) -> list[dg.AssetCheckSpec]:
    """What is checked of every service."""
    return [
        dg.AssetCheckSpec(name, asset=declaration.key(asset), blocking=name == ACCOUNTED, description=description)
        for name, (asset, description) in CHECKS.items()
    ]


@dataclass(frozen=True)
class _Verdict:
    name: str
    passed: bool = True
    note: str = ""
    metadata: Metadata = field(default_factory=dict)


def results(
    parameters: ServiceParameters, summary: Summary, earlier: Sequence[Earlier], keys: Mapping[str, dg.AssetKey]
) -> Iterator[dg.AssetCheckResult]:
    """One result per check, in their order. `keys`: the assets by their names."""
    verdicts = [_accounted(summary), _within_threshold(parameters, summary), *_of_answers(summary.review, earlier)]
    for verdict in verdicts:
        yield dg.AssetCheckResult(
            asset_key=keys[CHECKS[verdict.name][0]],
            check_name=verdict.name,
            passed=verdict.passed,
            severity=dg.AssetCheckSeverity.ERROR if verdict.name in _ERRORS else dg.AssetCheckSeverity.WARN,
            description=verdict.note or None,
            metadata=verdict.metadata,
        )


def _accounted(summary: Summary) -> _Verdict:
    """`publish` has proved it from storage; here it is said where people look."""
    counts: Metadata = {"inputs": summary.inputs, "succeeded": summary.succeeded, "failed": summary.failed}
    return _Verdict(ACCOUNTED, passed=summary.inputs == summary.succeeded + summary.failed, metadata=counts)


def _within_threshold(parameters: ServiceParameters, summary: Summary) -> _Verdict:
    return _Verdict(
        THRESHOLD,
        passed=summary.failed_share <= parameters.error_threshold,
        note=summary.message,
        metadata={
            "failed_share": float(summary.failed_share),
            "error_threshold": float(parameters.error_threshold),
            "failed": summary.failed,
            "failed_rows": summary.failed_rows,
        },
    )


def _of_answers(review: Review | None, earlier: Sequence[Earlier]) -> Iterator[_Verdict]:
    if review is None:
        note = "not checked: the service finished before its answers were reviewed"
        yield from (_Verdict(name, note=note) for name in (SCHEMA, STABLE, NOT_EMPTY))
        return
    yield _match_schema(review)
    yield _stable(review, earlier)
    yield _not_empty(review)


def _match_schema(review: Review) -> _Verdict:
    found = review.conformity
    if found is None:
        return _Verdict(SCHEMA, note="nothing to check: the model's API says nothing of its responses")
    metadata: Metadata = {"answers_checked": found.checked, "mismatches": found.mismatches}
    if found.first:
        metadata["first_mismatches"] = table(found.first)
    note = f"{found.mismatches} of {found.checked} answers in the sample are not as the schema says"
    return _Verdict(SCHEMA, passed=not found.mismatches, note=note if found.mismatches else "", metadata=metadata)


def _stable(review: Review, earlier: Sequence[Earlier]) -> _Verdict:
    from batch_pipeline.review.stability import changed, compare

    rows, worst, moved = [], 0.0, 0
    for one in earlier:
        large = changed(one.distribution, review.distribution)
        moved += len(large)
        for path, index in compare(one.distribution, review.distribution).items():
            worst = max(worst, index)
            verdict = "changed" if path in large else "stable"
            rows.append({"value": path, "psi": round(index, 4), "verdict": verdict, "against": one.name})
    if not rows:
        note = "nothing to compare with: no earlier run has" + (" these values" if earlier else " a distribution")
        return _Verdict(STABLE, note=note)
    rows.sort(key=lambda row: (row["verdict"] != "changed", -float(str(row["psi"]))))
    metadata: Metadata = {"largest_psi": round(worst, 4), "changed": moved, "psi": table(rows)}
    note = f"{moved} of {len(rows)} comparisons have changed; the most: {rows[0]['value']}, PSI {rows[0]['psi']}"
    return _Verdict(STABLE, passed=not moved, note=note if moved else "", metadata=metadata)


def _not_empty(review: Review) -> _Verdict:
    empty = review.empty
    metadata: Metadata = {"empty_results": empty.count}
    lines = ", ".join(map(str, empty.first))
    note = f"{empty.count} results are empty; their inputs' lines begin with {lines}" if empty.count else ""
    return _Verdict(NOT_EMPTY, passed=not empty.count, note=note, metadata=metadata)
