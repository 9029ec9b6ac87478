"""All of it together: the review of one service, made when its manifests are, from what is in storage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batch_pipeline.models.schema import Schema
from batch_pipeline.node_records import NodeRecord
from batch_pipeline.review.conformity import Conformity, conformity
from batch_pipeline.review.distribution import Distribution, distribution
from batch_pipeline.review.sampling import Chosen, read_sample
from batch_pipeline.review.work import NodeWork, SpecCost, balance, costs, work_by_node

if TYPE_CHECKING:
    import polars as pl

    from batch_pipeline.storage import Storage

FIRST_EMPTY = 10


@dataclass(frozen=True)
class EmptyResults:
    """Results without a byte, but those of inputs that are known to be empty themselves."""

    count: int = 0
    first: tuple[int, ...] = ()
    """Lines of their inputs."""


@dataclass(frozen=True)
class Review:
    """What a reviewer asks of a finished service. Names inputs by their lines; holds no source."""

    answers: int = 0
    """How many answers were looked at, in a sample over the results."""
    row_errors: int = 0
    """Rows met in the sample that have an error in the place of an answer."""
    not_json: int = 0
    """Lines met in the sample that are no JSON."""
    distribution: Distribution = field(default_factory=dict)
    conformity: Conformity | None = None
    """None where the model's API says nothing of its responses."""
    empty: EmptyResults = EmptyResults()
    nodes: tuple[NodeWork, ...] = ()
    """All attempts together, as everything that follows."""
    balance: float | None = None
    """The slowest node's seconds over the mean's."""
    costs: tuple[SpecCost, ...] = ()


def review(
    storage: Storage,
    accounted: Iterable[pl.DataFrame],
    chosen: Sequence[Chosen],
    records: Sequence[NodeRecord],
    *,
    join_input: bool,
    response: Schema | None,
) -> Review:
    """Reads the chosen results. `accounted`: Account.frames. Storage's errors pass through; odd answers are counted."""
    sample = read_sample(storage, chosen, join_input=join_input)
    nodes = work_by_node(records)
    return Review(
        answers=len(sample.answers),
        row_errors=sample.row_errors,
        not_json=sample.not_json,
        distribution=distribution(answer.value for answer in sample.answers),
        conformity=conformity(sample.answers, response),
        empty=empty_results(accounted),
        nodes=nodes,
        balance=balance(nodes),
        costs=costs(records),
    )


def empty_results(accounted: Iterable[pl.DataFrame]) -> EmptyResults:
    """An input of a manifest, whose size nobody asked for, counts as not empty."""
    import polars as pl

    suspect = pl.col("duplicate_of").is_null() & (pl.col("result_size") == 0) & (pl.col("size").fill_null(1) > 0)
    count = 0
    first: list[int] = []
    for frame in accounted:
        lines = frame.filter(suspect)["line"]
        count += lines.len()
        first.extend(lines[: FIRST_EMPTY - len(first)])
    return EmptyResults(count, tuple(first))
