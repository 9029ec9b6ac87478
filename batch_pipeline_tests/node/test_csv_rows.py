"""Every reader sees the same rows: the typed one, the one of texts, the exact one, and Python's csv module."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batch_pipeline.models.binding import BasicType
from batch_pipeline.node import csv_rows
from batch_pipeline.node.csv_fields import Column, FieldError, TensorColumns, json_path, parse_value, split_row
from batch_pipeline.node.csv_rows import Rows, parse


def tensors(
    *kinds: tuple[BasicType, str], nan: bool = False, indexes: tuple[int, ...] | None = None
) -> list[TensorColumns]:
    return [
        TensorColumns(
            f"t{n}", element, 1, (Column(indexes[n] if indexes else n, ("rows", 0, f"x{n}"), kind, element, nan),)
        )
        for n, (kind, element) in enumerate(kinds)
    ]


def exact(rows: list[list[str]], wanted: list[TensorColumns]) -> tuple[list[list[Any]], dict[int, str]]:
    """What Python's csv module and parse_value make of rows: (values of good rows, codes of bad ones)."""
    good, bad = [], {}
    for number, fields in enumerate(rows):
        columns = [column for tensor in wanted for column in tensor.columns]
        if any(column.index >= len(fields) for column in columns):
            bad[number] = "too_few_fields"
            continue
        try:
            values = [parse_value(fields[column.index], column) for column in columns]
        except FieldError as error:
            bad[number] = error.code
        else:
            good.append(values)
    return good, bad


def check(block: bytes, wanted: list[TensorColumns], rows: list[list[str]], *, multiline: bool) -> None:
    good, bad = exact(rows, wanted)
    for small in (0, 10**6):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_rows, "SMALL_BLOCK", small)
            found = parse(block, wanted, multiline=multiline)
        check_found(found, rows, wanted, good, bad)


def check_found(
    found: Rows, rows: list[list[str]], wanted: list[TensorColumns], good: list[list[Any]], bad: dict[int, str]
) -> None:
    assert {number: error.code for number, error in found.errors.items()} == bad
    assert found.count == len(rows)
    for position, tensor in enumerate(wanted):
        dtype = np.dtype(object if tensor.element == "string" else tensor.element)
        expected = np.array([values[position] for values in good], dtype=dtype)
        assert found.inputs[tensor.name].dtype == dtype
        np.testing.assert_array_equal(found.inputs[tensor.name], expected)


FIELD = st.one_of(
    st.sampled_from(
        [
            "1",
            "-1",
            "+1",
            "0",
            "1.0",
            "5.0",
            "1.5",
            ".5",
            "5.",
            ".",
            "1e3",
            "1E-3",
            "1e400",
            "-1e400",
            "1e39",
            "nan",
            "NaN",
            "inf",
            "-inf",
            "Infinity",
            "0x10",
            "1_000",
            "++1",
            "+-1",
            "-",
            "e1",
            "1e",
            "300",
            "-129",
            "65536",
            "9007199254740993",
            "9223372036854775807",
            "9223372036854775808",
            "18446744073709551615",
            "99999999999999999999",
            "1e18",
            "1e19",
            "0e999999",
            "1e99999999999999999999",
            "true",
            "FALSE",
            "True",
            "yes",
            "007",
            "1e-400",
            "4.9e-324",
            "0.1",
            "3.4028236e38",
            "65520",
            "-0",
            "-9223372036854775808",
            "340282356779733661637539395458142568447.9",
            "340282356779733661637539395458142568448",
            "1" * 401,
            "1" * 402,
            "１",
            "²",
            "\ufeff1",
            "\ufeff",
        ]
    ),
    st.sampled_from(
        [
            "",
            " ",
            " 1 ",
            "\t2",
            "\ufeff1",
            "\ufeff",
            "a b",
            "é",
            "中",
            "x\x00y",
            '"',
            '"1"',
            '""',
            '"a,b"',
            '"a""b"',
            'a"b',
            '"x"y',
            ' "1"',
        ]
    ),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.text(alphabet='ab1.,"- ', max_size=5),
)
KINDS: list[tuple[BasicType, str]] = [
    ("number", "float32"), ("number", "float64"), ("number", "float16"), ("integer", "int64"), ("integer", "uint64"),
    ("integer", "int8"), ("number", "uint8"), ("integer", "float32"), ("integer", "float64"), ("boolean", "bool"),
    ("boolean", "float32"), ("boolean", "int64"), ("string", "string"), ("number", "string"), ("integer", "string"),
    ("boolean", "string"), ("number", "bool"), ("integer", "float16"),
]  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(
    st.lists(st.lists(FIELD, min_size=0, max_size=3).map(",".join), max_size=5),
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=2),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
@example(["1,2", "3,4"], [("number", "float32"), ("number", "float32")], False, "\r\n", False)
@example(['"a""b",1'], [("string", "string"), ("integer", "int64")], False, "\n", True)
@example([",", "a,"], [("string", "string"), ("string", "string")], False, "\n", True)
@example(["\ufeff1,2"], [("number", "float32"), ("string", "string")], False, "\n", True)
@example(["\ufeff"], [("string", "string")], False, "\n", True)
def test_rows_are_what_the_csv_module_and_the_exact_parser_say(
    rows: list[str], kinds: list[tuple[BasicType, str]], nan: bool, end: str, ended: bool
) -> None:
    text = end.join(rows) + (end if ended and rows else "")
    if not ended and rows and not rows[-1]:
        rows = rows[:-1]  # a last line end makes no row
    expected = [next(csv.reader([row]), []) for row in rows]
    check(text.encode(), tensors(*kinds, nan=nan), expected, multiline=False)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.text(alphabet='a1,"\n\r é', max_size=6), min_size=1, max_size=3), max_size=6))
def test_multiline_rows_come_back_as_they_were_written(rows: list[list[str]]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    check(out.getvalue().encode(), tensors(("string", "string"), ("number", "float64")), rows, multiline=True)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='a1,"\n', max_size=30))
def test_multiline_rows_of_any_shape_are_the_csv_modules(text: str) -> None:
    expected = list(csv.reader(io.StringIO(text, newline="")))
    check(text.encode(), tensors(("string", "string"), ("string", "string")), expected, multiline=True)


@settings(deadline=None)
@given(st.text(alphabet='ab,"x ', max_size=20))
def test_a_split_row_is_the_csv_modules(row: str) -> None:
    fields = next(csv.reader([row]), [])
    assert split_row(row) == fields
    assert [split_row(row, most) for most in range(1, 5)] == [fields[:most] for most in range(1, 5)]


def test_side_by_side_columns_fill_one_input() -> None:
    columns = tuple(Column(index, (f"x{index}",), "number", "float32") for index in (2, 0))
    rows = parse(b"1,x,3\n4,y,6\nbad,z,9\n", [TensorColumns("t", "float32", 2, columns)], multiline=False)
    np.testing.assert_array_equal(rows.inputs["t"], np.array([[3, 1], [6, 4]], np.float32))
    assert rows.errors[2].message == "column 0 (x0): 'bad' is not a number"


@pytest.mark.parametrize("small", [0, 10**6])
def test_one_column_may_be_taken_more_than_once(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "SMALL_BLOCK", small)
    columns = tuple(Column(index, (f"x{n}",), "number", "float32") for n, index in enumerate((1, 0, 1)))
    rows = parse(b"1,2\n3,4\n", [TensorColumns("t", "float32", 2, columns)], multiline=False)
    assert rows.inputs["t"].tolist() == [[2, 1, 2], [4, 3, 4]]


@pytest.mark.parametrize("small", [0, 10**6])
@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize(
    ("kind", "element", "text", "expected"),
    [
        ("integer", "float32", "-0", "0.0"),
        ("integer", "float16", "-9223372036854775808", "out_of_range"),
        ("integer", "string", "1" * 402, "out_of_range"),
        ("integer", "string", "1" * 401, "1" * 401),
        ("number", "float32", "340282356779733661637539395458142568448", "out_of_range"),
    ],
)
def test_every_reader_takes_numbers_at_the_limits_alike(
    kind: BasicType,
    element: str,
    text: str,
    expected: str,
    small: int,
    clean: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(csv_rows, "SMALL_BLOCK", small)
    block = f"{text}\n".encode() + (b"" if clean else b"1 \n" * 100)
    rows = parse(block, tensors((kind, element)), multiline=False)
    assert (rows.errors[0].code if 0 in rows.errors else str(rows.inputs["t0"][0])) == expected


@pytest.mark.parametrize("small", [0, 10**6])
@pytest.mark.parametrize(
    ("block", "code", "message"),
    [
        (b"1,2\n", "too_few_fields", "column 2 (rows[0].x2): the row has only 2 fields"),
        (b"\n", "too_few_fields", "column 0 (rows[0].x0): the row has no fields"),
        (b"1,,3\n", "missing_value", "column 1 (rows[0].x1): the field is empty"),
        (b"1,2,3.5\n", "not_an_integer", "column 2 (rows[0].x2): '3.5' is not an integer"),
        (b"1,1e39,3\n", "out_of_range", "column 1 (rows[0].x1): '1e39' is too large for float32"),
        (b"1,2,300\n", "out_of_range", "column 2 (rows[0].x2): '300' is not in -128 to 127 (int8)"),
        (b"yes,2,3\n", "not_a_boolean", "column 0 (rows[0].x0): 'yes' is none of true, false, 1, 0"),
        (b"1,2,3,\xff\n", "invalid_utf8", "byte 6 of the row is not UTF-8"),
        (b"1," + b"x" * 99 + b",3\n", "not_a_number", f"column 1 (rows[0].x1): '{'x' * 39}…' is not a number"),
    ],
)
def test_a_bad_row_says_what_is_wrong_and_where(
    block: bytes, code: str, message: str, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_rows, "SMALL_BLOCK", small)
    wanted = tensors(("boolean", "bool"), ("number", "float32"), ("integer", "int8"))
    rows = parse(b"1,2,3\n" + block + b"true,2,3\n", wanted, multiline=False)
    assert {number: (error.code, error.message) for number, error in rows.errors.items()} == {1: (code, message)}
    assert len(rows.inputs["t0"]) == 2


@pytest.mark.parametrize("row", ["1.5", '"1.5",2', "1,2,3"])
def test_a_column_that_no_row_has_costs_nothing(row: str) -> None:
    """As one that is mapped by mistake."""
    block = f"{row}\n".encode() * 100_000
    tensor = TensorColumns("x", "float32", 2, (Column(2**31 - 1, ("x",), "number", "float32"),))
    errors = parse(block, (tensor,), multiline=False).errors
    assert len(errors) == 100_000
    assert f"the row has only {row.count(',') + 1} field" in errors[99_999].message


def test_empty_fields_are_nan_where_asked_and_where_nan_exists() -> None:
    wanted = tensors(("number", "float32"), ("integer", "int64"), nan=True)
    rows = parse(b",1\n2,\n", wanted, multiline=False)
    assert math.isnan(rows.inputs["t0"][0])
    assert {number: error.code for number, error in rows.errors.items()} == {1: "missing_value"}


def test_large_integers_are_exact() -> None:
    wanted = tensors(("integer", "int64"), ("integer", "uint64"))
    rows = parse(b"9007199254740993,18446744073709551615\n", wanted, multiline=False)
    assert rows.inputs["t0"].tolist() == [9007199254740993]
    assert rows.inputs["t1"].tolist() == [18446744073709551615]


def test_a_model_that_takes_no_columns_counts_rows() -> None:
    assert parse(b"1\n\n2", [], multiline=False).count == 3


def test_the_regular_case_takes_the_typed_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(csv_rows, "csv_texts")
    monkeypatch.setattr(csv_rows, "SMALL_BLOCK", 0)
    wanted = tensors(("number", "float32"), ("string", "string"), ("integer", "int64"))
    rows = parse(b'1.5,"a, ""b""",3,extra\r\n2,c,4\r\n', wanted, multiline=False)
    assert rows.inputs["t1"].tolist() == ['a, "b"', "c"]


def test_a_json_path_reads_as_people_write_it() -> None:
    assert json_path(("data", "rows", 0, "x")) == "data.rows[0].x"
    assert json_path(()) == "the value"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.00000005960464477539063", 1.0000001192092896),  # above half-way, where it rounds to half-way as a double
        ("1.00000005960464477539062", 1.0),
        ("1.000000059604644775390625", 1.0),  # half-way: to the even one
        ("1.000000178813934326171875", 1.0000002384185791),
        ("-1.00000005960464477539063", -1.0000001192092896),
        ("1e-45", 1.401298464324817e-45),
        ("3.4028235e38", 3.4028234663852886e38),
        ("340282356779733661637539395458142568447.9", 3.4028234663852886e38),  # a double of it is half-way to infinity
    ],
)
@pytest.mark.parametrize("small", [0, 10**6])
@pytest.mark.parametrize("clean", [True, False])
def test_every_reader_rounds_to_the_nearest_float32_once(
    text: str, expected: float, small: int, clean: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_rows, "SMALL_BLOCK", small)
    block = f"{text}\n".encode() + (
        b"" if clean else b"1 \n" * 100
    )  # which the typed reader leaves to the one of texts
    found = parse(block, tensors(("number", "float32")), multiline=False).inputs["t0"]
    assert float(found[0]) == expected


ODD = st.sampled_from(
    [
        b"", b"1", b"1,2", b",,", b" 1 ,2,x", b'"1",2,x', b'1,"2,x', b'1,2,"x""y"', b'1,2,x"', b"\xff,2,x", b"1,2,\xc3",
        b"1,2,\r", b"\r1,2,x", b"a,2,x", b"1,b,x", b"1e39,2,x", b"1,99999999999999999999,x", b"1,2.0,x", b"1,2,x,y",
        b'"\xff",2,x', b",2,x", b"1,,x", b"1,2,\xe4\xb8\xad",
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(ODD, max_size=8),
    st.randoms(use_true_random=False),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
    st.booleans(),
)
def test_a_few_odd_rows_among_many_are_read_exactly_where_they_stand(
    odd: list[bytes], random: Any, end: bytes, ended: bool, nan: bool
) -> None:
    rows = [b"%d.5,%d,t%d" % (number, number, number) for number in range(100)]
    for row in odd:
        rows.insert(random.randrange(len(rows) + 1), row)
    wanted = tensors(("number", "float32"), ("integer", "int64"), ("string", "string"), nan=nan)
    block = end.join(rows) + (end if ended or not rows[-1] else b"")
    exactly: dict[str, Any] = {}
    quickly: dict[str, Any] = {}
    for small, found in ((10**6, exactly), (0, quickly)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_rows, "SMALL_BLOCK", small)
            read = parse(block, wanted, multiline=False)
        found |= {
            "count": read.count,
            "errors": sorted(read.errors.items()),
            **{name: a.tolist() for name, a in read.inputs.items()},
        }
    assert repr(quickly) == repr(exactly)


def test_one_odd_row_in_a_hundred_keeps_a_block_on_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(csv_rows, "csv_texts")
    rows = [b"1,2,x"] * 4000
    for number, row in enumerate((b"1", b"a,2,x", b"\xff,2,x", b'1,2,"x', b"1,2,x\r", b"", b"1,true,x"), start=1):
        rows[number * 100] = row
    wanted = tensors(("number", "float32"), ("integer", "int64"), ("string", "string"))
    found = parse(b"\n".join(rows), wanted, multiline=False)
    assert found.count == 4000
    assert [number // 100 for number in found.errors] == [1, 2, 3, 6, 7]
