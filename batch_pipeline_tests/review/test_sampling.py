"""The sample of answers: whole lines, spread over the results, within its bounds, the same each time."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_pipeline.errors import ObjectNotFound
from batch_pipeline.locations import Location
from batch_pipeline.review import sampling
from batch_pipeline.review.sampling import MOST_ANSWERS, MOST_BYTES, Chosen, chosen_lines, read_sample
from batch_pipeline.storage import Storage


def result(path: Path, lines: list[str], line: int = 1) -> Chosen:
    path.write_text("".join(f"{one}\n" for one in lines))
    return Chosen(line, Location("", str(path)[1:], "file"), path.stat().st_size, len(lines))


def accounted(count: int, **columns: list[object]) -> pl.DataFrame:
    base: dict[str, list[object]] = {
        "line": list(range(1, count + 1)),
        "digest": [bytes([(97 * number) % 256]) * 32 for number in range(1, count + 1)],
        "duplicate_of": [None] * count,
        "result_size": [10] * count,
    }
    return pl.DataFrame(base | columns, schema_overrides={"line": pl.UInt64, "duplicate_of": pl.UInt64})


def test_small_results_are_read_whole(tmp_path, storage):
    first = result(tmp_path / "a", ['{"x":1}', '{"x":2}'], line=3)
    second = result(tmp_path / "b", ["[1]"], line=1)
    sample = read_sample(storage, [first, second], join_input=False)
    assert [(answer.line, answer.place, answer.value) for answer in sample.answers] == [
        (3, 0, {"x": 1}),
        (3, 8, {"x": 2}),
        (1, 0, [1]),
    ]


def test_a_large_result_is_read_at_places_all_over_it(tmp_path, storage):
    rows = 200_000
    large = result(tmp_path / "large", [f'{{"row":{row},"more":"{"x" * 40}"}}' for row in range(rows)])
    sample = read_sample(storage, [large], join_input=False)
    found = [answer.value["row"] for answer in sample.answers]
    assert MOST_ANSWERS * 0.8 < len(found) <= MOST_ANSWERS * 1.01
    assert found == sorted(set(found))
    tenths = [sum(row * 10 // rows == tenth for row in found) for tenth in range(10)]
    assert min(tenths) > len(found) / 20
    assert (found[0], sample.not_json, sample.row_errors) == (0, 0, 0)
    assert found[-1] > rows * 0.999
    assert sample == read_sample(storage, [large], join_input=False)


def test_long_answers_stay_within_the_bytes(tmp_path, storage):
    long = [
        result(tmp_path / str(number), [json.dumps([0.5] * 5000)] * 40, line=number) for number in range(20)
    ]  # 20 MB in all
    sample = read_sample(storage, long, join_input=False)
    assert 0 < sum(answer.size for answer in sample.answers) <= MOST_BYTES
    assert {answer.line for answer in sample.answers} == set(range(20))
    assert all(len(answer.value) == 5000 for answer in sample.answers)


def test_a_line_larger_than_all_that_is_read_is_passed_over(tmp_path, storage):
    path = tmp_path / "huge"
    path.write_bytes(b'"' + b"x" * (MOST_BYTES + 1) + b'"\n')
    huge = Chosen(1, Location("", str(path)[1:], "file"), path.stat().st_size, 1)
    small = result(tmp_path / "small", ["1"], line=2)
    assert [answer.value for answer in read_sample(storage, [huge, small], join_input=False).answers] == [1]


def test_row_errors_and_what_is_no_json_are_counted_apart(tmp_path, storage):
    error = '{"error":{"code":"too_few_fields","message":"2 of 4"}}'
    joined = '{"input":["1"],"error":{"code":"too_few_fields","message":"2 of 4"}}'
    sample = read_sample(storage, [result(tmp_path / "a", [error, joined, '{"x":', "", '{"x":1}'])], join_input=False)
    assert (sample.row_errors, sample.not_json, [one.value for one in sample.answers]) == (2, 2, [{"x": 1}])


def test_the_row_that_stands_beside_an_answer_is_left_out(tmp_path, storage):
    lines = ['{"input":["1","2"],"x":1}', '{"input":["1","2"],"output":[0.5]}']
    sample = read_sample(storage, [result(tmp_path / "a", lines)], join_input=True)
    assert [one.value for one in sample.answers] == [{"x": 1}, {"output": [0.5]}]


def test_a_missing_result_is_an_error_of_the_store(tmp_path, storage):
    with pytest.raises(ObjectNotFound):
        read_sample(storage, [Chosen(1, Location("", f"{tmp_path}/none"[1:], "file"), 5, 1)], join_input=False)


def test_nothing_chosen_is_an_empty_sample(storage):
    assert read_sample(storage, [], join_input=False).answers == ()


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3000), min_size=1, max_size=40), min_size=1, max_size=4),
    st.integers(1, 8),
    st.integers(1, 60),
    st.integers(1, 20_000),
)
def test_every_answer_is_a_line_of_its_result(tmp_path_factory, lengths, ranges, answers, most_bytes):
    folder = tmp_path_factory.mktemp("results")
    chosen = [
        result(folder / str(line), [json.dumps({"row": row, "x": "y" * size}) for row, size in enumerate(sizes)], line)
        for line, sizes in enumerate(lengths)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "RANGES", ranges)
        patch.setattr(sampling, "MOST_ANSWERS", answers)
        patch.setattr(sampling, "MOST_BYTES", most_bytes)
        patch.setattr(sampling, "LEAST_RANGE", 64)
        sample = read_sample(Storage(allow_local=True), chosen, join_input=False)
    assert sample.not_json == 0
    assert sum(answer.size for answer in sample.answers) <= most_bytes
    assert len({(answer.line, answer.place) for answer in sample.answers}) == len(sample.answers)
    for answer in sample.answers:
        text = (folder / str(answer.line)).read_bytes()
        assert answer.place == 0 or text[answer.place - 1 : answer.place] == b"\n"
        end = answer.place + answer.size
        assert (json.loads(text[answer.place : end]), text[end : end + 1]) == (answer.value, b"\n")


def test_the_smallest_digests_are_chosen_whatever_the_division(monkeypatch):
    monkeypatch.setattr(sampling, "MOST_RESULTS", 10)
    table = accounted(100)
    whole = chosen_lines([table])
    assert list(whole) == sorted(range(1, 101), key=lambda line: ((97 * line) % 256, line))[:10]
    assert list(whole.values()) == list(range(10))
    assert chosen_lines([table[:30], table[30:]]) == whole


def test_only_what_has_an_answer_is_chosen():
    table = accounted(5, duplicate_of=[None, 3, None, None, None], result_size=[None, 5, 5, 0, None])
    assert chosen_lines([table]) == {3: 0}
