from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipeline.answers_table import conform, flatten, tables, unified
from batch_pipeline.row_errors import row_error


@pytest.mark.parametrize(
    ("answer", "leaves"),
    [
        ({"label": "rose", "p": {"rose": 0.5}}, {"label": "rose", "p.rose": 0.5}),
        ({"data": {"resp": [{"x": 1, "y": [1, 2]}]}}, {"data.resp.0.x": 1, "data.resp.0.y": [1, 2]}),
        (
            {"scores": [["rose", 0.9]], "many": [{"a": 1}, {"a": 2}]},
            {"scores": [["rose", 0.9]], "many": [{"a": 1}, {"a": 2}]},
        ),
        ({"source": 1, "row": 2, "error": "x"}, {"answer.source": 1, "answer.row": 2, "answer.error": "x"}),
        (0.5, {"output": 0.5}),
        ([1, 2], {"output": [1, 2]}),
        (None, {"output": None}),
        ({}, {}),
        ([{"a": 1}], {"0.a": 1}),
    ],
)
def test_leaves_become_columns(answer: object, leaves: dict[str, object]) -> None:
    assert flatten(answer) == leaves


def test_the_error_record_of_a_row_is_known_from_an_answer() -> None:
    error = {"code": "bad_number", "message": "column 3"}
    assert row_error({"error": error}) == "bad_number: column 3"
    assert row_error({"error": error, "input": ["a"]}) == "bad_number: column 3"
    assert row_error({"error": error, "label": 1}) is None
    assert row_error({"error": 0.1}) is None
    assert row_error([1]) is None


def whole(rows: list[dict[str, Any]], batch_rows: int) -> pa.Table:
    found = list(tables(rows, batch_rows))
    schema = unified([table.schema for table in found])
    return pa.concat_tables([conform(table, schema) for table in found])


def row(**leaves: Any) -> dict[str, Any]:
    return {"source": "s", "row": 0, "error": None, **leaves}


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_batches_of_other_types_go_together(batch_rows: int) -> None:
    rows = [row(a=1, e=[]), row(a=2.5, b=None, e=[1.5]), row(b="x", c=[1], d=True), row(a=None, d="no", error="e: f")]
    table = whole(rows, batch_rows)
    assert table.column_names == ["source", "row", "a", "e", "b", "c", "d", "error"]
    assert table.column("a").to_pylist() == [1.0, 2.5, None, None]
    assert table.column("b").to_pylist() == [None, None, "x", None]
    assert table.column("c").to_pylist() == [None, None, [1], None]
    assert table.column("d").to_pylist() == [None, None, "true", "no"]
    assert table.column("error").to_pylist() == [None, None, None, "e: f"]
    assert table.column("e").to_pylist() == [[], [1.5], None, None]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(JSON, min_size=1, max_size=6), st.integers(1, 3))
def test_any_answers_make_one_table(answers: list[Any], batch_rows: int) -> None:
    rows = [{"source": "s", "row": n, **flatten(answer), "error": None} for n, answer in enumerate(answers)]
    table = whole(rows, batch_rows)
    assert table.column("row").to_pylist() == list(range(len(answers)))


def test_integers_that_no_column_holds_become_text() -> None:
    assert whole([row(n=2**63), row(n=1)], 2).column("n").to_pylist() in ([2**63, 1], ["9223372036854775808", "1"])
    assert whole([row(n=10**400), row(n=0.5)], 2).column("n").to_pylist() == [str(10**400), "0.5"]
    assert whole([row(n=2**60 + 1), row(n=0.5)], 2).column("n").to_pylist() == [float(2**60), 0.5]
