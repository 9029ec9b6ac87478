"""Manifest lines: what is accepted, what is refused and how, and that output repeats `source` byte for byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipeline.locations import Location, ShareLink
from batch_pipeline.manifest import content_identity, error_line, parse_line, result_line

KEY = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).filter(
    lambda key: not key.endswith("/") and not key.startswith("/")
)
RESULT = Location("out", "infer-result/x_result.txt")


@given(KEY, st.booleans(), st.dictionaries(st.text(max_size=5).filter(lambda k: k.strip() != "source"), st.integers()))
def test_source_is_repeated_byte_for_byte(key, escaped, others):
    text = f"s3://bucket/{key}"
    line = json.dumps({**others, "source": text}, ensure_ascii=escaped).encode()
    parsed = parse_line(line)
    assert parsed.source == Location("bucket", key)
    assert parsed.token in line
    written = result_line(parsed.token, RESULT)
    assert json.loads(written) == {"source": text, "inference-loc": "s3://out/infer-result/x_result.txt"}
    assert b'"source": ' + json.dumps(text, ensure_ascii=escaped).encode() in written


@given(st.binary(max_size=80))
def test_no_line_raises(line):
    parsed = parse_line(line)
    assert (parsed.source is None) == (parsed.error is not None)
    assert json.loads(error_line(parsed.token, "code", "why", line=3))["line"] == 3


def test_escapes_stay_as_they_are_written():
    line = rb'{"a": {"source": "no"}, "source" : "s3:\/\/bucket\/\u4e2d.jpg", "b": [1, "}"]}'
    parsed = parse_line(line)
    assert parsed.source == Location("bucket", "中.jpg")
    assert parsed.token == rb'"s3:\/\/bucket\/\u4e2d.jpg"'


def test_the_key_with_a_stray_blank_is_accepted():
    assert parse_line(b'{"source ": "s3://bucket/k.csv"}').source == Location("bucket", "k.csv")


@pytest.mark.parametrize(
    ("line", "code", "token", "says"),
    [
        (b"not json", "bad_line", b"null", "not JSON"),
        (b"[1]", "bad_line", b"null", "a list"),
        (b"{}", "bad_line", b"null", "no `source`"),
        (b'{"source": null}', "bad_line", b"null", "no `source`"),
        (b'{"source": 5}', "bad_line", b"5", "a number"),
        (b'{"source": "s3://bucket/dir/"}', "bad_source", b'"s3://bucket/dir/"', "folder"),
        (b'{"source": "ftp://x/y"}', "bad_source", b'"ftp://x/y"', "s3://"),
        (b'{"source": "\xff"}', "bad_line", b"null", "not JSON"),
    ],
)
def test_a_bad_line_says_why(line, code, token, says):
    parsed = parse_line(line)
    assert parsed.source is None
    assert parsed.token == token
    assert parsed.error is not None
    assert parsed.error.code == code
    assert says in parsed.error.message


@pytest.mark.parametrize("value", ["1e400", "-1e400", "1" * 5000, '[{"a": 1e400}]', "1e99999999999999999999"])
@pytest.mark.parametrize("text", ["s3://bucket/k.csv", r"s3:\/\/bucket\/k.csv", "https://h/k.csv?Signature=a"])
def test_a_number_of_any_size_is_json_where_nobody_asks_for_it(value: str, text: str) -> None:
    line = f'{{"weight": {value}, "source": "{text}"}}'.encode()
    parsed = parse_line(line)
    assert parsed.error is None
    assert parsed.token == f'"{text}"'.encode()
    assert b"Signature" not in content_identity(line, parsed)
    other = line.replace(value.encode(), value.encode() + b"1" if value[-1].isdigit() else b"[2e400]")
    assert content_identity(other, parse_line(other)) != content_identity(line, parsed)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "01", "1e", r'"\ud800"', "1e400 2"])
def test_what_only_some_take_for_json_is_not(value: str) -> None:
    parsed = parse_line(f'{{"weight": {value}, "source": "s3://bucket/k.csv"}}'.encode())
    assert parsed.error is not None
    assert "not JSON" in parsed.error.message


@pytest.mark.parametrize("value", ["1e400", '["x", 1e400]', '{"a": [1e400]}'])
def test_a_number_for_a_source_can_be_read_back_by_everybody(value: str) -> None:
    parsed = parse_line(f'{{"source": {value}}}'.encode())
    assert (parsed.source, parsed.token) == (None, b"null")


@pytest.mark.parametrize("levels", [241, 300, 1010, 1100, 100_000])
@pytest.mark.parametrize(
    "line",
    [
        '{"source": %s}',
        '{"x": %s, "source": "s3:\\/\\/bucket/k"}',
        '{"x": %s, "source": "https://b.s3.amazonaws.com/k?Signature=a"}',
    ],
)
def test_a_line_that_is_nested_too_deeply_is_a_bad_one(line: str, levels: int) -> None:
    parsed = parse_line((line % ("[" * levels + "]" * levels)).encode())
    assert parsed.error is not None
    assert parsed.error.code == "bad_line"
    assert "nested too deeply" in parsed.error.message or "not JSON" in parsed.error.message


def test_a_line_as_deep_as_may_be() -> None:
    line = ('{"x": ' + "[" * 239 + "]" * 239 + ', "source": "https://b.s3.amazonaws.com/k?Signature=a"}').encode()
    assert b"Signature" not in content_identity(line, parse_line(line))


def test_a_renewed_share_link_is_the_same_input():
    link = "https://bucket.obs.cn-north-1.myhuaweicloud.com/dir/1.jpg?AccessKeyId=A&Expires={}&Signature={}"
    old, new = (
        json.dumps({"source": link.format(*sign), "owner": "x"}).encode() for sign in ((1, "s1%3D"), (2, "s2%3D"))
    )
    first, second = parse_line(old), parse_line(new)
    assert isinstance(first.source, ShareLink)
    assert first.token in old
    assert first.identity == second.identity
    assert content_identity(old, first) == content_identity(new, second)
    assert b"s1" not in content_identity(old, first)
