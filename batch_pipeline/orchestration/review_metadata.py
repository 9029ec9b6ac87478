"""The review of a service as Dagster metadata: distribution and plot, the nodes' balance, what they cost."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import TYPE_CHECKING

import dagster as dg

from batch_pipeline.orchestration.earlier import DISTRIBUTION
from batch_pipeline.orchestration.tables import Metadata, table

if TYPE_CHECKING:
    from batch_pipeline.review.distribution import Distribution
    from batch_pipeline.review.report import Review
    from batch_pipeline.review.work import SpecCost

LARGEST_PLOT = 60_000
"""Characters of the image in the event log; every page that lists the run's events loads it."""
MOST_NODES = 32


def of_review(review: Review) -> Metadata:
    """Numbers that a chart over runs makes sense of, and tables and a plot for one run."""
    slowest = sorted(review.nodes, key=lambda node: node.seconds, reverse=True)[:MOST_NODES]
    metadata: Metadata = {
        "answers_reviewed": review.answers,
        "empty_results": review.empty.count,
        **_plot(review.distribution),
        DISTRIBUTION: dg.MetadataValue.json(review.distribution),
        "bytes_read": sum(node.bytes_read for node in review.nodes),
    }
    if review.conformity is not None:
        metadata["schema_mismatches"] = review.conformity.mismatches
    if review.balance is not None:
        metadata["node_balance"] = float(review.balance)
    if slowest:
        metadata["slowest_nodes"] = table(asdict(node) for node in slowest)
    return {**metadata, **_costs(review.costs)}


def _plot(distribution: Distribution) -> Metadata:
    from batch_pipeline.review.plot import plot

    image = plot(distribution) if distribution else None
    if image is None:
        return {}
    encoded = base64.b64encode(image).decode()
    if len(encoded) > LARGEST_PLOT:
        return {}
    return {"predictions": dg.MetadataValue.md(f"![Distribution of the answers](data:image/svg+xml;base64,{encoded})")}


def _costs(costs: tuple[SpecCost, ...]) -> Metadata:
    """The sum is given only where every spec has a price: part of it would be taken for the whole."""
    if not costs:
        return {}
    metadata: Metadata = {
        "node_seconds": round(float(sum(one.node_seconds for one in costs)), 3),
        "node_seconds_by_spec": table(asdict(one) for one in costs),
    }
    priced = [one.cost for one in costs if one.cost is not None]
    return {**metadata, "cost": round(float(sum(priced)), 6)} if len(priced) == len(costs) else metadata
