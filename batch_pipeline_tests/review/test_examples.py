"""Answers with what was asked: from the nodes, else from storage."""

from __future__ import annotations

from pathlib import Path

from batch_pipeline.locations import Location
from batch_pipeline.node_records import NodeRecord
from batch_pipeline.review.examples import HEAD_BYTES, MOST, examples


def record(node, *sample):
    return NodeRecord(1, node, "cpu-2u8g", None, 1.0, 1, 0, 1, 0, 1, sample)


def located(path: Path, content: bytes) -> Location:
    path.write_bytes(content)
    return Location("", str(path)[1:], "file")


def test_every_node_gives_one_in_turn(storage):
    first = [{"request": number, "answer": number} for number in range(MOST)]
    found = examples(storage, [record(0, *first), record(1, {"request": "b", "answer": 1}), record(2)], [])
    assert [one["request"] for one in found] == [0, "b", 1, 2, 3]


def test_answers_to_files_are_shown_with_their_sources(storage, tmp_path):
    results = [(f"s3://b/{number}", located(tmp_path / str(number), b'{"x": 1}\n')) for number in range(MOST + 2)]
    found = examples(storage, [record(0, {"answer": {"x": 1}})], results)
    assert found == tuple({"source": f"s3://b/{number}", "answer": {"x": 1}} for number in range(MOST))


def test_what_is_empty_or_too_long_is_left_out_and_what_is_no_json_is_text(storage, tmp_path):
    contents = [b"", b"x" * HEAD_BYTES + b"\n", b"\xff\n", b"1\n2\n"]
    results = [(None, located(tmp_path / str(number), content)) for number, content in enumerate(contents)]
    assert [one["answer"] for one in examples(storage, [], results)] == ["\ufffd", 1]
