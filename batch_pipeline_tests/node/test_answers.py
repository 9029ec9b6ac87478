"""Answers say what the outputs say, in JSON, for every kind of output."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_pipeline.models.binding import Binding, Path, ResponseLeaf
from batch_pipeline.node import leaf_texts
from batch_pipeline.node.answers import answer_texts, is_object


@pytest.fixture(autouse=True, params=[0, 10**6], ids=["vectors", "few"])
def few(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test, for many rows and for few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaf_texts, "_FEW", request.param)
        yield


def bound(*response: ResponseLeaf, classification: bool = False, labels: tuple[str, ...] | None = None) -> Binding:
    return Binding("json", (), (), None, None, response, classification, labels)


def answers(binding: Binding, outputs: dict[str, Any], rows: int) -> list[Any]:
    texts = answer_texts(binding, outputs, rows)
    assert len(texts) == rows
    return [json.loads(text) for text in texts]


def one(value: Any, form: Any = "any", kind: Any = None, path: Path = ("y",)) -> list[Any]:
    binding = bound(ResponseLeaf(path, "y", form, kind))
    found = answers(binding, {"y": value}, len(value))
    return [row["y"] for row in found] if path == ("y",) else found


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(width=32) | st.sampled_from([0.1, 1e-7, 3.4e38, 1e22, -0.0]), min_size=1, max_size=8))
def test_float32_reads_back_as_the_same_float32(values: list[float]) -> None:
    array = np.array(values, np.float32)
    for shape in ((-1,), (-1, 1), (1, -1), (1, 1, -1)):
        found = np.array(one(array.reshape(shape)), dtype=object).reshape(-1)
        for text, value in zip(found, array, strict=True):
            if math.isfinite(value):
                assert np.float32(text) == value
                assert math.copysign(1, text) == math.copysign(1, value)
            else:
                assert text is None


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.floats(width=32), min_size=1, max_size=9).map(lambda values: np.array(values, np.float32))
    | st.lists(st.floats(), min_size=1, max_size=9).map(lambda values: np.array(values, np.float64))
    | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=9).map(lambda values: np.array(values, np.int64))
)
def test_few_answers_and_many_are_the_same_texts(values: Any) -> None:
    texts = []
    for most in (0, 10**6):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leaf_texts, "_FEW", most)
            texts.append(leaf_texts.listed(leaf_texts.texts_of(values, "number")))
    assert texts[0] == texts[1]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(), min_size=1, max_size=5))
def test_float64_reads_back_exactly_and_json_lacks_nan(values: list[float]) -> None:
    expected = [value if math.isfinite(value) else None for value in values]
    assert one(np.array(values)) == expected
    assert one(np.array([values])) == [expected[0] if len(values) == 1 else expected]
    assert one([dict(enumerate(values))], "map") == [{str(key): value for key, value in enumerate(expected)}]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(max_size=3).map(lambda key: key.encode(errors="replace").decode()), min_size=1, max_size=4, unique=True
    )
    | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4, unique=True),
    st.lists(st.lists(st.floats(), min_size=4, max_size=4), min_size=1, max_size=5),
    st.booleans(),
)
def test_maps_of_the_same_keys_are_those_that_they_are_one_by_one(
    keys: list[Any], values: list[Any], mixed: bool
) -> None:
    maps = [dict(zip(keys, row, strict=False)) for row in values]
    if mixed:
        maps.append(dict(reversed(maps[0].items())))
    alone = [text for row in maps for text in leaf_texts.listed(leaf_texts.texts_of([row], None))]
    assert leaf_texts.listed(leaf_texts.texts_of(maps, None)) == alone
    finite = [{str(key): number if math.isfinite(number) else None for key, number in row.items()} for row in maps]
    assert one(maps, "map") == finite


def test_float16_is_exact() -> None:
    first, second, third = one(np.array([0.1, 65504, np.inf], np.float16))
    assert (np.float16(first), second, third) == (np.float16(0.1), 65504, None)


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint64", "uint8"])
def test_integers_are_exact(dtype: str) -> None:
    limits = np.iinfo(dtype)
    values = [int(limits.min), int(limits.max), 1]
    assert one(np.array(values, dtype)) == values
    assert one(np.array([values], dtype)) == [values]
    assert one(np.array([values], dtype), "array", "integer") == [values]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(), min_size=1, max_size=4))
def test_strings_are_exact(values: list[str]) -> None:
    values = [value.encode(errors="replace").decode() for value in values]
    assert one(np.array(values, dtype=object), "scalar", "string") == values
    assert one(np.array([values], dtype=object), "array", "string") == [values]


def test_booleans() -> None:
    assert one(np.array([True, False])) == [True, False]
    assert one(np.array([[True, False]])) == [[True, False]]


def test_a_number_without_a_schema_comes_as_it_is() -> None:
    assert one(np.zeros((2, 1), np.float32)) == [0.0, 0.0]
    assert one(np.zeros((2, 2), np.float32)) == [[0.0, 0.0]] * 2
    assert one(np.zeros((2, 1, 2), np.float32)) == [[[0.0, 0.0]]] * 2
    assert one(np.zeros((2, 0), np.float32)) == [[], []]


def test_a_zipmap_is_an_object() -> None:
    assert one([{0: 0.25, 1: math.nan}, {0: 0.5, 1: 0.5}], "map") == [{"0": 0.25, "1": None}, {"0": 0.5, "1": 0.5}]
    assert one([{"是": 1.0}], "map") == [{"是": 1.0}]


def test_responses_are_nested_as_the_schema_says() -> None:
    binding = bound(
        ResponseLeaf(("data", "resp_data", 0, "predict"), "a", "scalar", "number"),
        ResponseLeaf(("data", "resp_data", 0, "label"), "b", "scalar", "string"),
        ResponseLeaf(("data", "scores"), "c", "array", "number"),
        ResponseLeaf(('q"uote',), "a", "scalar", "number"),
    )
    outputs = {
        "a": np.array([[1.5], [2.5]], np.float32),
        "b": np.array(["x", "y"], dtype=object),
        "c": np.array([[1, 2], [3, np.nan]], np.float32),
    }
    assert answers(binding, outputs, 2) == [
        {"data": {"resp_data": [{"predict": 1.5, "label": "x"}], "scores": [1.0, 2.0]}, 'q"uote': 1.5},
        {"data": {"resp_data": [{"predict": 2.5, "label": "y"}], "scores": [3.0, None]}, 'q"uote': 2.5},
    ]
    assert one(np.array([1.0]), "scalar", "number", (0, 0)) == [[[1.0]]]
    assert one(np.array([1.0]), "scalar", "number", ()) == [1.0]
    assert answers(bound(), {}, 2) == [{}, {}]


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (np.array([1, 2], np.int64), "string", ["1", "2"]),
        (np.array([0.5, np.nan], np.float32), "string", ["0.5", None]),
        (np.array([1.0, 2.5, np.nan, 1e20], np.float32), "integer", [1, 2.5, None, float(np.float32(1e20))]),
        (np.array([0, 1, 2], np.int64), "boolean", [False, True, 2]),
        (np.array([0.0, 1.0, 0.5]), "boolean", [False, True, 0.5]),
        (np.array([True, False]), "integer", [1, 0]),
        (np.array([True, False]), "string", ["true", "false"]),
        (np.array(["1", "1.5", "x", "1e999"], dtype=object), "number", [1, 1.5, "x", "1e999"]),
        (np.array(["7", "1.5", "x"], dtype=object), "integer", [7, "1.5", "x"]),
        (np.array(["True", "no"], dtype=object), "boolean", [True, "no"]),
        (np.array([[1.0, 2.0]], np.float32), "integer", [[1, 2]]),
        (np.array([[1, 2]], np.int64), "string", [["1", "2"]]),
    ],
)
def test_a_value_takes_the_schemas_type_where_that_loses_nothing(value: Any, kind: str, expected: list[Any]) -> None:
    found = one(value, "scalar" if value.ndim == 1 else "array", kind)
    if kind == "integer" and value.dtype.kind == "f" and value.ndim == 1:
        assert [np.float32(x) if isinstance(x, float) else x for x in found] == [
            np.float32(x) if isinstance(x, float) else x for x in expected
        ]
    else:
        assert found == expected
    assert [repr(value)[:1] for value in found] == [repr(value)[:1] for value in expected]


def test_a_classifier_answers_its_best_five_labels() -> None:
    binding = bound(ResponseLeaf(("scores",), "y", "array"), classification=True, labels=("a", "b", "c", "d", "e", "f"))
    logits = np.array([[0, 5, 1, 2, 3, 4]], np.float32)
    (answer,) = answers(binding, {"y": logits}, 1)
    assert answer["predicted_label"] == "b"
    assert [label for label, _ in answer["scores"]] == ["b", "f", "e", "d", "c"]
    softmax = np.exp(logits[0]) / np.exp(logits[0]).sum()
    assert [p for _, p in answer["scores"]] == pytest.approx(sorted(softmax.tolist(), reverse=True)[:5])


def test_probabilities_are_left_as_they_are_and_labels_may_be_absent() -> None:
    binding = bound(ResponseLeaf(("scores",), "y", "array"), classification=True)
    (answer,) = answers(binding, {"y": np.array([[0.25, 0.75]], np.float32)}, 1)
    assert answer == {"predicted_label": "1", "scores": [["1", 0.75], ["0", 0.25]]}
    (answer,) = answers(binding, {"y": [{"cat": 0.9, "dog": 0.1}]}, 1)
    assert answer["predicted_label"] == "cat"
    (answer,) = answers(binding, {"y": np.array([[np.nan, 1.0]], np.float32)}, 1)
    assert [p for _, p in answer["scores"]] == [None, None]


def test_whether_an_answer_has_room_for_its_input() -> None:
    assert is_object(bound(ResponseLeaf(("y",), "y", "scalar")))
    assert is_object(bound())
    assert not is_object(bound(ResponseLeaf((0, "y"), "y", "scalar")))
    assert not is_object(bound(ResponseLeaf(("input",), "y", "scalar")))
    assert not is_object(bound(ResponseLeaf((), "y", "scalar")))
