"""The population stability index: 0 for the same, never negative, large where much has changed."""

from __future__ import annotations

import json
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_pipeline.review.distribution import distribution
from batch_pipeline.review.stability import (
    LARGE,
    SLIGHT,
    by_chance,
    changed,
    compare,
    only_in,
    population_stability_index,
)

VALUES = st.one_of(
    st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=60),
    st.lists(st.none() | st.integers(-30, 30), min_size=1, max_size=60),
    st.lists(st.none() | st.sampled_from("abcdef") | st.booleans(), min_size=1, max_size=60),
    st.lists(st.text(max_size=2), min_size=1, max_size=60),
)


def of(values):
    return distribution({"x": value} for value in values)


def index(before, now):
    return compare(of(before), of(now))["x"]


def normal(count, mean=0.0, seed=0):
    return np.random.default_rng(seed).normal(mean, 1, count).tolist()


@settings(deadline=None)
@given(VALUES, VALUES)
def test_it_is_never_negative_and_0_for_the_same(before, now):
    assert index(before, now) >= 0
    assert index(before, before) == pytest.approx(0)


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1), st.lists(st.sampled_from("abc"), min_size=1))
def test_it_is_symmetric_where_both_have_the_same_bins(before, now):
    before, now = [*before, *"abc"], [*now, *"abc"]
    assert index(before, now) == pytest.approx(index(now, before))


@settings(deadline=None)
@given(VALUES, VALUES)
def test_a_distribution_that_was_kept_as_json_compares_alike(before, now):
    kept = json.loads(json.dumps(of(before)))
    assert compare(kept, of(now)) == compare(of(before), of(now))


def test_it_is_the_sum_over_the_bins():
    expected = (0.5 - 0.8) * log(0.5 / 0.8) + (0.5 - 0.2) * log(0.5 / 0.2)
    assert index(["a"] * 50 + ["b"] * 50, ["a"] * 80 + ["b"] * 20) == pytest.approx(expected)


def test_ten_quantile_bins_of_the_earlier_one_are_what_numbers_are_counted_in():
    before, now = normal(10_000), normal(10_000, mean=0.4, seed=1)
    edges = np.quantile(before, np.linspace(0.1, 0.9, 9))
    p, q = (np.bincount(np.searchsorted(edges, one), minlength=10) / 10_000 for one in (before, now))
    assert index(before, now) == pytest.approx(float(((p - q) * np.log(p / q)).sum()), rel=0.1)


def test_a_shift_is_told_from_none():
    before = normal(2000)
    assert index(before, normal(2000, seed=1)) < SLIGHT < LARGE < index(before, normal(2000, mean=0.8, seed=1))
    assert index(before, before[:1000] + [None] * 1000) > LARGE


def test_what_was_constant_and_is_not_has_changed_in_either_direction():
    for other in (0.5, 2.5):
        assert index([1.5] * 100, [other] * 100) > LARGE
        assert index([1.5] * 100, [1.5] * 50 + [other] * 50) > LARGE


def test_a_new_label_and_another_kind_of_value_are_changes():
    assert index(list("ab") * 50, list("abc") * 50) > LARGE
    assert index(list("ab") * 50, normal(100)) > LARGE
    assert index(normal(100), list("ab") * 50) > LARGE


def test_rare_labels_among_the_others_are_no_change():
    labels = [f"{label:03}" for label in range(40) for _ in range(50 + label)]
    shuffled = [f"{label:03}" for label in range(40) for _ in range(90 - label)]
    assert index(labels, labels[::-1]) == 0
    assert index(labels, shuffled) < SLIGHT


def test_integers_that_are_few_in_one_run_and_many_in_the_next_compare_as_numbers():
    few, many = [row % 20 for row in range(2000)], [row % 21 for row in range(2000)]
    assert 0 <= index(few, many) < SLIGHT
    assert 0 <= index(many, few) < SLIGHT
    assert index(few, [row % 21 + 10 for row in range(2000)]) > LARGE


def test_few_answers_may_differ_by_chance():
    """The index of samples of one population exceeds the bound about 1 time in 20, whatever their size."""
    rng = np.random.default_rng(3)
    for size in (50, 500):
        bound = by_chance(size, size, 10)
        above = [index(rng.normal(size=size).tolist(), rng.normal(size=size).tolist()) > bound for _ in range(100)]
        assert sum(above) <= 15
    assert by_chance(30, 30, 10) > LARGE > by_chance(1000, 1000, 10)


def test_changed_names_what_has_changed_beyond_chance():
    before = distribution({"x": x, "y": y} for x, y in zip(normal(1000), normal(1000, seed=1), strict=True))
    now = distribution({"x": x, "y": y} for x, y in zip(normal(1000, 2), normal(1000, seed=2), strict=True))
    assert list(changed(before, now)) == ["x"]
    assert set(compare(before, now)) == {"x", "y"}
    few = normal(10), normal(10, seed=5)
    assert index(*few) > LARGE
    assert not changed(of(few[0]), of(few[1]))


def test_only_leaves_of_both_are_compared():
    assert compare(distribution([{"a": 1, "b": 1}]), distribution([{"b": 1, "c": 1}])).keys() == {"b"}
    assert compare(distribution([]), distribution([{"a": 1}])) == {}
    leaf = of(["a"])["leaves"]["x"]
    assert population_stability_index(leaf, leaf) == 0


def test_a_leaf_that_only_one_has_is_named_unless_chance_or_a_cut_may_have_left_it_out():
    both, extra = {"x": 1.0}, {"x": 1.0, "y": 2.0}
    before = distribution([both] * 50 + [extra] * 50)
    assert only_in(before, distribution([both] * 50)) == ["y"]
    assert only_in(distribution([both] * 50), before) == []
    assert only_in(before, distribution([both] * 3)) == []
    assert only_in(distribution([both] * 999 + [extra]), distribution([both] * 100)) == []
    many = distribution([{f"x{number}": float(number) for number in range(30)}])
    assert many["left_out"]
    assert only_in(before, many) == []
