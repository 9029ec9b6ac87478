"""What earlier attempts have finished of a node's share, so that it is not done again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipeline.layout import OutputLayout
from batch_pipeline.ledger import recorded
from batch_pipeline.outcomes import with_outcomes
from batch_pipeline.proof import stored_results
from batch_pipeline.storage import Storage

if TYPE_CHECKING:
    import polars as pl


def finished_units(storage: Storage, layout: OutputLayout, division: str, node: int, shard: pl.DataFrame) -> pl.Series:
    """Which units of a node's shard are done: the ledger and storage both have their results."""
    import polars as pl

    lines, results = shard["line"].implode(), shard["result"].implode()
    mine = [found.filter(found["line"].is_in(lines)) for found in recorded(storage, layout, division, node)]
    units = with_outcomes(shard, pl.concat(mine) if mine else None)
    there = [found.filter(found["result"].is_in(results)) for found in stored_results(storage, layout)]
    parts = [(*made, info.size) for info in storage.list(layout.parts) if (made := layout.part_of(info.location))]
    stored = pl.concat(there) if there else pl.DataFrame(schema={"result": pl.Binary, "result_size": pl.Int64})
    stored_parts = pl.DataFrame(parts, {"line": pl.UInt64, "part": pl.Int64, "part_size": pl.Int64}, orient="row")
    found = units.join(
        stored.rename({"result_size": "stored_size"}), on="result", how="left", maintain_order="left"
    ).join(stored_parts, on=["line", "part"], how="left", maintain_order="left")
    in_parts = (pl.col("parts") > 1) & ~pl.col("whole")
    size = pl.when(in_parts).then("part_size").otherwise("stored_size")
    is_done = pl.col("code").is_null() & (pl.col("result_size") == size)
    return found.select(done=is_done.fill_null(value=False))["done"]
