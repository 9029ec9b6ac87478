"""The distribution of a service's answers, leaf by leaf: plain data that two runs can be compared by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import orjson

Distribution = dict[str, Any]
"""`{"answers": n, "leaves": {path: leaf}, "left_out": leaves not shown}`; JSON-able.

A leaf has `kind`, `count` and `null` (values that are and are not null), and
- `numbers`: `mean` and `quantiles`, the 0th to the 100th percentile, each a value that occurs;
- `labels`, and `integers` of few values: `counts` of the 20 most frequent, and `other`, all others together.
"""
MOST_LEAVES = 20
MOST_LABELS = 20
STEPS = 100
_PATHS = 1_000
_LARGEST = 1e300
"""Numbers beyond it, either way, count as this: sums and differences must stay finite."""
_LABEL_LENGTH = 100


def distribution(answers: Iterable[Any]) -> Distribution:
    """The distribution of answers as `json.loads` gives them; the most telling leaves, labels before numbers.

    A leaf is named by its dotted path. The elements of an array are one leaf, `path[]`; of an array of pairs of
    label and number, as image classifiers answer, the number of the first is, `path[0]`.
    """
    values: dict[str, list[Any]] = {}
    count = 0
    for answer in answers:
        _gather(answer, "", values)
        count += 1
    leaves = {path or "output": _leaf(found) for path, found in values.items()}
    chosen = sorted(leaves, key=lambda path: _rank(leaves[path]))[:MOST_LEAVES]
    return {"answers": count, "leaves": {path: leaves[path] for path in chosen}, "left_out": len(leaves) - len(chosen)}


def _gather(value: Any, path: str, values: dict[str, list[Any]]) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _gather(inner, f"{path}.{name}" if path else name, values)
    elif isinstance(value, list):
        if _is_pairs(value):
            _gather(value[0][1], f"{path or 'output'}[0]", values)
            return
        for inner in value:
            _gather(inner, f"{path or 'output'}[]", values)
    elif path in values:
        values[path].append(value)
    elif len(values) < _PATHS:  # a document of free keys has no end of them
        values[path] = [value]


def _is_pairs(value: list[Any]) -> bool:
    return bool(value) and all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and not isinstance(pair[1], list | dict)
        for pair in value
    )


def _leaf(values: list[Any]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    leaf: dict[str, Any] = {"kind": "labels", "count": len(known), "null": len(values) - len(known)}
    kinds = {type(value) for value in known}
    if kinds and kinds <= {int, float}:
        if float in kinds or len(set(known)) > MOST_LABELS:
            return {**leaf, "kind": "numbers", **_numbers(known)}
        leaf["kind"] = "integers"
    counts = Counter(map(_label, known))
    top = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_LABELS])
    return {**leaf, "counts": top, "other": len(known) - sum(top.values()), "different": len(counts)}


def _numbers(values: list[Any]) -> dict[str, Any]:
    import numpy as np

    found = np.asarray(values, dtype=np.float64).clip(-_LARGEST, _LARGEST)
    # Percentiles that occur: an interpolated one would part what is equal.
    percentiles = np.quantile(found, np.linspace(0, 1, STEPS + 1), method="inverted_cdf")
    return {"mean": _short(float(found.mean())), "quantiles": [_short(float(value)) for value in percentiles]}


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _label(value: Any) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= _LABEL_LENGTH else text[: _LABEL_LENGTH - 1] + "…"


def _rank(leaf: dict[str, Any]) -> int:
    """Labels say most, then numbers; then what never changes; last, free text, of which nearly every one is new."""
    if leaf["kind"] == "numbers":
        return 1 if leaf["quantiles"][0] != leaf["quantiles"][-1] else 2
    if leaf["different"] > max(MOST_LABELS, leaf["count"] // 2):
        return 3
    return 0 if leaf["different"] > 1 else 2
