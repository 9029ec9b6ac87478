"""What nodes spent, added up over their tries."""

from __future__ import annotations

from batch_pipeline.node_records import NodeRecord
from batch_pipeline.review.work import NodeWork, SpecCost, balance, costs, work_by_node


def record(node, seconds, *, attempt=1, spec="cpu-2u8g", price=None):
    return NodeRecord(attempt, node, spec, price, seconds, 2, 1, 10, 3, 100)


def test_the_tries_of_a_node_are_added_up():
    nodes = work_by_node([record(1, 10), record(0, 30), record(1, 20, attempt=2)])
    assert nodes == (NodeWork(0, 30, 2, 1, 10, 3, 100), NodeWork(1, 30, 4, 2, 20, 6, 200))


def test_balance_is_the_slowest_over_the_mean():
    assert balance(work_by_node([record(0, 10), record(1, 30)])) == 1.5
    assert balance(work_by_node([record(0, 10), record(1, 10)])) == 1
    assert balance([]) is None
    assert balance(work_by_node([record(0, 0)])) is None


def test_money_is_the_hours_of_a_node_times_its_price():
    assert costs([record(0, 1800, price=2.5), record(1, 1800, price=2.5)]) == (SpecCost("cpu-2u8g", 3600, 2.5, 2.5),)
    assert costs([record(0, 60)]) == (SpecCost("cpu-2u8g", 60, None, None),)
    assert costs([]) == ()


def test_a_price_that_changed_between_attempts_is_kept_apart():
    found = costs([record(0, 3600, price=1), record(0, 3600, price=2, attempt=2), record(1, 36, spec="gpu")])
    assert found == (
        SpecCost("cpu-2u8g", 3600, 1, 1),
        SpecCost("cpu-2u8g", 3600, 2, 2),
        SpecCost("gpu", 36, None, None),
    )
