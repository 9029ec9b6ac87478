"""The population stability index: how far the answers of one run are from those of an earlier one."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from math import ceil, inf, log, nextafter, sqrt
from typing import Any

from batch_pipeline.review.distribution import STEPS, Distribution

SLIGHT = 0.1
"""Below it nothing has changed, by the usual rule of thumb."""
LARGE = 0.25
"""Above it much has changed."""
_BINS = 10
_ONE_SIDED_95 = 1.645
_RARE = 0.05
_EMPTY = 0.5
"""An empty bin counts as half a value: the index has no end otherwise."""

Leaf = dict[str, Any]


def compare(before: Distribution, now: Distribution) -> dict[str, float]:
    """The index of every leaf that both have."""
    leaves = now["leaves"]
    return {
        path: population_stability_index(leaf, leaves[path])
        for path, leaf in before["leaves"].items()
        if path in leaves and leaf["count"] + leaf["null"] and leaves[path]["count"] + leaves[path]["null"]
    }


def changed(before: Distribution, now: Distribution, *, threshold: float = LARGE) -> dict[str, float]:
    """The leaves whose index is above the threshold, and above what chance alone makes of so few answers."""
    return {
        path: index
        for path, index in compare(before, now).items()
        if index > threshold and index > by_chance(before["answers"], now["answers"], _bins(before["leaves"][path]))
    }


def only_in(one: Distribution, other: Distribution) -> list[str]:
    """The leaves that the other lacks, by more than chance.

    Where the other does not show all of its leaves, nobody knows; a leaf that few answers have may be lacking by
    chance, 5 times in 100 at most.
    """
    if other["left_out"] or not other["answers"]:
        return []
    return [
        path
        for path, leaf in one["leaves"].items()
        if path not in other["leaves"]
        and (1 - min(1.0, (leaf["count"] + leaf["null"]) / one["answers"])) ** other["answers"] < _RARE
    ]


def population_stability_index(before: Leaf, now: Leaf) -> float:
    """Σ (p - q) ln(p / q) over the bins of the earlier leaf; never negative, 0 for equal shares.

    The bins are the earlier one's ten quantile bins, or its labels and all others; nulls are one of their own.
    N. Siddiqi, Credit Risk Scorecards, Wiley 2006, also for the rule of thumb: below 0.1 stable, above 0.25 changed.
    """
    before, now = _alike(before, now), _alike(now, before)
    bins = _without_rare(before, now)
    pairs = list(zip(_counts(bins, before), _counts(bins, now), strict=True))
    was = sum(pair[0] for pair in pairs)
    now_is = sum(pair[1] for pair in pairs)
    index = 0.0
    for one, other in pairs:
        if one or other:
            p, q = max(one, _EMPTY) / was, max(other, _EMPTY) / now_is
            index += (p - q) * log(p / q)
    return index


def by_chance(before: int, now: int, bins: int) -> float:
    """The index that two samples of one population, of these sizes, stay below 95 times in 100.

    (1/n + 1/m) χ², by its normal approximation: B. Yurdakul and J. Naranjo, Statistical properties of the population
    stability index, Journal of Risk Model Validation 14(4), 2020.
    """
    if bins < 2 or not before or not now:
        return 0.0
    return (1 / before + 1 / now) * (bins - 1 + _ONE_SIDED_95 * sqrt(2 * (bins - 1)))


def _alike(leaf: Leaf, other: Leaf) -> Leaf:
    """Few integers as numbers where they were, or have become, many."""
    if leaf["kind"] != "integers" or other["kind"] != "numbers":
        return leaf
    values = sorted(int(label) for label, count in leaf["counts"].items() for _ in range(count))
    last = len(values) - 1
    quantiles = [values[min(last, max(0, ceil(step * len(values) / STEPS) - 1))] for step in range(STEPS + 1)]
    return {**leaf, "kind": "numbers", "quantiles": quantiles}


def _bins(leaf: Leaf) -> int:
    return sum(count > 0 for count in _counts(leaf, leaf))


def _counts(bins: Leaf, leaf: Leaf) -> list[float]:
    """How many values of `leaf` are in each bin of the leaf `bins`; the nulls last, before them what fits no bin."""
    if bins["kind"] == "numbers":
        if leaf["kind"] != "numbers":
            return [0.0] * (len(_cuts(bins)) + 1) + [leaf["count"], leaf["null"]]
        shares = [share_below(leaf, cut) for cut in _cuts(bins)]
        edges = [0.0, *shares, 1.0]
        parts = [(high - low) * leaf["count"] for low, high in pairwise(edges)]
        return [*parts, 0.0, leaf["null"]]
    counts = {} if leaf["kind"] == "numbers" else leaf["counts"]
    found = [counts.get(label, 0) for label in bins["counts"]]
    return [*found, leaf["count"] - sum(found), leaf["null"]]


def _without_rare(bins: Leaf, leaf: Leaf) -> Leaf:
    """Less the labels that the other leaf may have among its others."""
    if "numbers" in (bins["kind"], leaf["kind"]) or not leaf["other"]:
        return bins
    return {**bins, "counts": {label: count for label, count in bins["counts"].items() if label in leaf["counts"]}}


def _cuts(leaf: Leaf) -> list[float]:
    """The upper ends of the earlier one's quantile bins; of equal ones one, and what lies below it apart."""
    quantiles = leaf["quantiles"]
    ends = [quantiles[step] for step in range(STEPS // _BINS, STEPS, STEPS // _BINS)]
    below = [nextafter(quantiles[0], -inf)] if quantiles[0] == ends[0] else []
    return below + sorted(set(ends))


def share_below(leaf: Leaf, cut: float) -> float:
    """The share of values ≤ cut, between two quantiles as if they were spread evenly there."""
    quantiles = leaf["quantiles"]
    place = bisect_right(quantiles, cut) - 1
    if place < 0 or place == STEPS:
        return float(place == STEPS)
    low, high = quantiles[place], quantiles[place + 1]
    return float((place + (cut - low) / (high - low)) / STEPS)
