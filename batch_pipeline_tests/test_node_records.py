"""What a node spent, as it is kept."""

from __future__ import annotations

import math

import pytest

from batch_pipeline import node_records
from batch_pipeline.layout import OutputLayout
from batch_pipeline.node.job import Progress
from batch_pipeline.node_records import NodeRecordWriter, load_node_records
from batch_pipeline.node_specs import NodeSpec

SPEC = NodeSpec("cpu", "CPU", 2, 8, price_per_hour=0.5)


@pytest.fixture
def layout(folder):
    return OutputLayout(folder)


def test_each_try_of_a_node_has_a_record_of_its_own(storage, layout):
    for attempt, done in ((2, 3), (1, 4), (2, 5)):
        writer = NodeRecordWriter(storage, layout, attempt=attempt, node=0, spec=SPEC)
        writer.save(Progress(done=1))
        writer.save(Progress(done=done, failed=1, units=9, rows=7, failed_rows=2, bytes_read=50))
    records = load_node_records(storage, layout)
    assert sorted((one.attempt, one.inputs) for one in records) == [(1, 4), (2, 3), (2, 5)]
    assert [one.attempt for one in records] == [1, 2, 2]
    one = records[0]
    assert (one.node, one.spec, one.price_per_hour, one.failed, one.rows, one.failed_rows, one.bytes_read) == (
        *(0, "cpu", 0.5, 1, 7, 2, 50),
    )
    assert one.seconds >= 0


def test_a_node_that_is_killed_has_left_its_last_record(storage, layout, monkeypatch):
    writer = NodeRecordWriter(storage, layout, attempt=1, node=0, spec=SPEC)
    writer.report(Progress(done=1))
    assert load_node_records(storage, layout) == []
    monkeypatch.setattr(node_records, "SAVE_SECONDS", 0)
    writer.report(Progress(done=2))
    assert [one.inputs for one in load_node_records(storage, layout)] == [2]


def test_examples_keep_what_json_has_no_room_for_and_long_ones_are_left_out(storage, layout):
    odd = {"request": {"x": math.inf, "n": 2**70, "s": "\ud800玫"}, "answer": [1.5]}
    long = {"request": "x" * node_records.SAMPLE_BYTES, "answer": 1}
    NodeRecordWriter(storage, layout, attempt=1, node=0, spec=SPEC).save(Progress(), [long, odd])
    (record,) = load_node_records(storage, layout)
    assert record.sample == (odd,)
