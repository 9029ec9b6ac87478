"""What the nodes of a service spent, how evenly, and what that costs. Over all attempts since it was started over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from batch_pipeline.node_records import NodeRecord


@dataclass(frozen=True)
class NodeWork:
    """One node. An input that was tried again counts again; a node that worked on none has its start alone."""

    node: int
    seconds: float
    inputs: int
    failed: int
    rows: int
    failed_rows: int
    bytes_read: int


@dataclass(frozen=True)
class SpecCost:
    """The node-seconds of one spec, and their price where the table of node specs had one (in its own currency)."""

    spec: str
    node_seconds: float
    price_per_hour: float | None
    cost: float | None


def work_by_node(records: Iterable[NodeRecord]) -> tuple[NodeWork, ...]:
    nodes: dict[int, NodeWork] = {}
    for one in records:
        sum_ = nodes.get(one.node, NodeWork(one.node, 0.0, 0, 0, 0, 0, 0))
        nodes[one.node] = replace(
            sum_,
            seconds=round(sum_.seconds + one.seconds, 3),
            inputs=sum_.inputs + one.inputs,
            failed=sum_.failed + one.failed,
            rows=sum_.rows + one.rows,
            failed_rows=sum_.failed_rows + one.failed_rows,
            bytes_read=sum_.bytes_read + one.bytes_read,
        )
    return tuple(nodes[node] for node in sorted(nodes))


def balance(nodes: Iterable[NodeWork]) -> float | None:
    """The slowest node's seconds over the mean's: 1 where all took as long. None where no node has a record."""
    seconds = [node.seconds for node in nodes]
    total = sum(seconds)
    return round(max(seconds) * len(seconds) / total, 3) if total else None


def costs(records: Iterable[NodeRecord]) -> tuple[SpecCost, ...]:
    """By spec, and by price where that changed between attempts."""
    spent: dict[tuple[str, float | None], float] = {}
    for one in records:
        key = (one.spec, one.price_per_hour)
        spent[key] = spent.get(key, 0.0) + one.seconds
    return tuple(
        SpecCost(spec, round(seconds, 3), price, None if price is None else round(seconds / 3600 * price, 6))
        for (spec, price), seconds in spent.items()
    )
