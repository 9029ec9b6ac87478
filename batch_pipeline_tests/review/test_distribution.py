"""The distribution of answers: which leaves there are, what is kept of each, and which are shown."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_pipeline.review.distribution import MOST_LABELS, MOST_LEAVES, STEPS, distribution

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def test_labels_are_counted_the_most_frequent_first():
    leaf = distribution([{"label": label} for label in ["b", "a", "b", None, "c"]])["leaves"]["label"]
    assert leaf == {
        "kind": "labels",
        "count": 4,
        "null": 1,
        "counts": {"b": 2, "a": 1, "c": 1},
        "other": 0,
        "different": 3,
    }


def test_numbers_have_percentiles_that_occur():
    values = np.random.default_rng(0).normal(size=5000)
    leaf = distribution([{"x": float(value)} for value in values] + [{"x": None}])["leaves"]["x"]
    assert (leaf["kind"], leaf["count"], leaf["null"], len(leaf["quantiles"])) == ("numbers", 5000, 1, STEPS + 1)
    assert np.isclose(leaf["mean"], values.mean(), atol=1e-5)
    assert np.allclose(leaf["quantiles"][::10], np.quantile(values, np.linspace(0, 1, 11)), atol=0.01)


def test_few_integers_are_counted_and_many_are_numbers():
    few = distribution([row % 3 for row in range(30)])["leaves"]["output"]
    assert (few["kind"], few["counts"]) == ("integers", {"0": 10, "1": 10, "2": 10})
    many = distribution(range(MOST_LABELS + 1))["leaves"]["output"]
    assert (many["kind"], many["quantiles"][0], many["quantiles"][-1]) == ("numbers", 0, MOST_LABELS)


def test_booleans_are_labels_and_a_mix_is_too():
    leaves = distribution([{"a": True, "b": 1.5}, {"a": False, "b": "x"}])["leaves"]
    assert leaves["a"]["counts"] == {"false": 1, "true": 1}
    assert (leaves["b"]["kind"], leaves["b"]["counts"]) == ("labels", {"1.5": 1, "x": 1})


def test_arrays_are_one_leaf_and_free_keys_are_leaves():
    answers = [{"p": [0.1, 0.9], "by": {"rose": 0.2, "tulip": 0.8}, "data": [{"y": [[1.5], [2.5]]}]}] * 2
    leaves = distribution(answers)["leaves"]
    assert {path: leaf["count"] for path, leaf in leaves.items()} == {
        "p[]": 4,
        "by.rose": 2,
        "by.tulip": 2,
        "data[].y[][]": 4,
    }


def test_the_scores_of_an_image_classifier_are_its_best_one():
    answers = [
        {"predicted_label": "a", "scores": [["a", 0.9], ["b", 0.1]]},
        {"predicted_label": "b", "scores": [["b", 0.6]]},
    ]
    leaves = distribution(answers)["leaves"]
    assert list(leaves) == ["predicted_label", "scores[0]"]
    assert (leaves["scores[0]"]["quantiles"][0], leaves["scores[0]"]["quantiles"][-1]) == (0.6, 0.9)


def test_the_most_telling_leaves_are_shown():
    answers = [
        {
            "id": f"row {row}",
            "constant": 1.5,
            "score": row / 100,
            "label": "ab"[row % 2],
            **{f"more{number}": float(row) for number in range(MOST_LEAVES)},
        }
        for row in range(100)
    ]
    found = distribution(answers)
    assert list(found["leaves"])[:2] == ["label", "score"]
    assert (len(found["leaves"]), found["left_out"]) == (MOST_LEAVES, 4)
    assert not {"id", "constant"} & set(found["leaves"])


def test_more_labels_than_are_kept_are_others():
    leaf = distribution([f"{label:03}" for label in range(100) for _ in range(label + 1)])["leaves"]["output"]
    assert (len(leaf["counts"]), leaf["different"], leaf["counts"]["099"]) == (MOST_LABELS, 100, 100)
    assert sum(leaf["counts"].values()) + leaf["other"] == leaf["count"]


@settings(deadline=None)
@given(st.lists(JSON, max_size=30))
def test_any_answers_have_a_small_distribution_in_plain_json(answers):
    found = distribution(answers)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["answers"], len(found["leaves"]) <= MOST_LEAVES) == (len(answers), True)
    for leaf in found["leaves"].values():
        if leaf["kind"] == "numbers":
            assert leaf["quantiles"] == sorted(leaf["quantiles"])
        else:
            assert sum(leaf["counts"].values()) + leaf["other"] == leaf["count"]
