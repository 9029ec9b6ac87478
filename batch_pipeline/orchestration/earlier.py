"""What earlier runs answered, as the event log has it: output folders may have been overwritten since."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from batch_pipeline.review.distribution import Distribution

DISTRIBUTION = "distribution"
"""The metadata entry of `inference_results` that holds it."""
LOOKED_AT = 10
"""Materializations, the newest first; more would be slow to read, and tell of long ago."""


@dataclass(frozen=True)
class Earlier:
    """The distribution of the answers of an earlier run."""

    name: str
    """Which run it was, for people."""
    distribution: Distribution


def earlier_runs(
    instance: dg.DagsterInstance, results: dg.AssetKey, partition: str, run_id: str, *, others: bool
) -> list[Earlier]:
    """The newest earlier run of this service; with `others` also the newest of another partition of the asset."""
    found = [_newest(instance, dg.AssetRecordsFilter(results, asset_partitions=[partition]), run_id, None)]
    if others:
        found.append(_newest(instance, results, run_id, partition))
    return [one for one in found if one is not None]


def _newest(
    instance: dg.DagsterInstance, wanted: dg.AssetKey | dg.AssetRecordsFilter, run_id: str, but: str | None
) -> Earlier | None:
    records = instance.fetch_materializations(wanted, limit=LOOKED_AT).records
    return next(
        _distributions(record for record in records if record.run_id != run_id and record.partition_key != but), None
    )


def _distributions(records: Iterator[dg.EventLogRecord]) -> Iterator[Earlier]:
    for record in records:
        event = record.asset_materialization
        value: Any = event.metadata.get(DISTRIBUTION) if event is not None else None
        if isinstance(value, dg.JsonMetadataValue) and isinstance(value.data, dict) and value.data.get("leaves"):
            yield Earlier(f"{record.partition_key}, run {record.run_id[:8]}", value.data)
