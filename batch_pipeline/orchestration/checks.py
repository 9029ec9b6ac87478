"""The asset checks of a service: what they are called, what they mean, and how a summary is judged by them.

Only `every_input_accounted_for` blocks. What else is wrong with answers is a warning: they are written, and a person
must look at them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from batch_pipeline.errors import AccountingFailed
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.earlier import Earlier
from batch_pipeline.orchestration.names import ACCOUNTED, INFERENCE_RESULTS, OUTPUT_MANIFEST
from batch_pipeline.orchestration.tables import Metadata, table
from batch_pipeline.parameters import ServiceParameters

if TYPE_CHECKING:
    from batch_pipeline.review.distribution import Distribution
    from batch_pipeline.review.report import Review
    from batch_pipeline.summary import Summary

THRESHOLD = "errors_within_threshold"
SCHEMA = "answers_match_schema"
STABLE = "predictions_stable"
NOT_EMPTY = "no_empty_result"

_STABLE = """The answers are distributed as those of the run before: no value has a population stability index (PSI)
above 0.25, and above what chance makes of so few; none is gone, and none is new. A partition of a declared service is
also compared with the newest run of another partition."""

CHECKS = {
    ACCOUNTED: (OUTPUT_MANIFEST, "inputs = succeeded + failed, as storage says: no input is lost."),
    THRESHOLD: (INFERENCE_RESULTS, "No larger share of inputs, nor of rows, failed than `error_threshold` allows."),
    SCHEMA: (INFERENCE_RESULTS, "A sample of the answers is as the response schema of the model's API says."),
    STABLE: (INFERENCE_RESULTS, _STABLE),
    NOT_EMPTY: (INFERENCE_RESULTS, "No input that has content has a result without a byte."),
}
"""The asset that each is shown on, and what it says."""
_ORDER = ("changed", "gone", "new", "stable")
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


def unaccounted(error: AccountingFailed, key: dg.AssetKey) -> dg.AssetCheckResult:
    """The verdict on a service that can't publish: how many inputs there are, how many are missing, and the first."""
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=ACCOUNTED,
        passed=False,
        severity=dg.AssetCheckSeverity.ERROR,
        description=error.message,
        metadata={
            "inputs": error.inputs,
            "missing": error.missing,
            **({"first_missing": table(error.first)} if error.first else {}),
        },
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
    found, lines = review.conformity, review.answers + review.not_json
    wrong = [f"{review.not_json} of {lines} lines in the sample are no JSON"] if review.not_json else []
    metadata: Metadata = {"not_json": review.not_json}
    if found is not None:
        metadata |= {"answers_checked": found.checked, "mismatches": found.mismatches}
        if found.first:
            metadata["first_mismatches"] = table(found.first)
        if found.mismatches:
            wrong.append(f"{found.mismatches} of {found.checked} answers in the sample are not as the schema says")
    nothing = "the sample has no answer" if found is not None else "the model's API says nothing of its responses"
    checked = found is not None and found.checked
    note = "; ".join(wrong) or ("" if checked else f"nothing to check: {nothing}")
    return _Verdict(SCHEMA, passed=not wrong, note=note, metadata=metadata)


def _stable(review: Review, earlier: Sequence[Earlier]) -> _Verdict:
    rows = [row for one in earlier for row in _compared(one, review.distribution)]
    if not rows:
        note = "nothing to compare with: no earlier run has" + (" these values" if earlier else " a distribution")
        return _Verdict(STABLE, note=note)
    rows.sort(key=lambda row: (_ORDER.index(row["verdict"]), -row.get("psi", 0.0)))
    indexes = [row["psi"] for row in rows if "psi" in row]
    verdicts = [row["verdict"] for row in rows]
    counts = {verdict: verdicts.count(verdict) for verdict in ("changed", "gone", "new")}
    metadata: Metadata = {"largest_psi": max(indexes)} if indexes else {}
    moved = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    first = rows[0]
    most = f"{first['value']}, PSI {first['psi']}" if "psi" in first else f"{first['value']} is {first['verdict']}"
    note = f"of {len(rows)} values compared: {', '.join(moved)}; the first: {most}" if moved else ""
    return _Verdict(STABLE, passed=not moved, note=note, metadata={**metadata, **counts, "psi": table(rows)})


def _compared(before: Earlier, now: Distribution) -> Iterator[dict[str, Any]]:
    """A row for every value that one of the two runs has. One that only one of them has has no index."""
    from batch_pipeline.review.stability import changed, compare, only_in

    large = changed(before.distribution, now)
    for path, index in compare(before.distribution, now).items():
        verdict = "changed" if path in large else "stable"
        yield {"value": path, "psi": round(index, 4), "verdict": verdict, "against": before.name}
    for verdict, one, other in (("gone", before.distribution, now), ("new", now, before.distribution)):
        yield from ({"value": path, "verdict": verdict, "against": before.name} for path in only_in(one, other))


def _not_empty(review: Review) -> _Verdict:
    empty = review.empty
    metadata: Metadata = {"empty_results": empty.count}
    lines = ", ".join(map(str, empty.first))
    note = f"{empty.count} results are empty; their inputs' lines begin with {lines}" if empty.count else ""
    return _Verdict(NOT_EMPTY, passed=not empty.count, note=note, metadata=metadata)
