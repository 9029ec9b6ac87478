"""Makes the plan: looks up what sizes are worth knowing, divides the inputs, and writes each node's table."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from batch_pipeline.division import Piece, divide
from batch_pipeline.errors import ObjectNotFound, StorageFailed
from batch_pipeline.inputs import InputList
from batch_pipeline.layout import OutputLayout
from batch_pipeline.locations import Location, Source
from batch_pipeline.plan import ShardPlan, load_table, save_table
from batch_pipeline.shard import shard_plan
from batch_pipeline.storage import ObjectInfo, Storage

if TYPE_CHECKING:
    import polars as pl

LOOKED_UP = 2000
"""Manifests of up to this many CSV sources have their sizes looked up, so that large ones can be divided."""
LOOKUPS_AT_ONCE = 32


def divide_over_nodes(
    storage: Storage, layout: OutputLayout, inputs: InputList, *, node_count: int, min_part: int, may_cut: bool
) -> tuple[ShardPlan, ...]:
    """Writes each node's table and returns its share. An earlier attempt's division is kept."""
    import polars as pl

    table = load_table(storage, layout.inputs)
    try:
        shards = [load_table(storage, layout.shard(node)) for node in range(node_count)]
    except ObjectNotFound:
        sized = look_up_sizes(table, inputs) if may_cut else table
        divided = divide_table(sized, node_count=node_count, min_part=min_part, may_cut=may_cut)
        if inputs.is_manifest:
            # Only the parts of one object must be of one version; any other source is read as it is by then.
            divided = divided.with_columns(etag=pl.when(pl.col("parts") > 1).then("etag"))
        shards = [divided.filter(pl.col("node") == node) for node in range(node_count)]
    else:
        offsets = table.select("line", "offset")
        shards = [shard.drop("offset").join(offsets, on="line", how="left", maintain_order="left") for shard in shards]
        shards = _recut(shards, inputs)
    for node, shard in enumerate(shards):
        save_table(storage, layout.shard(node), shard)
    return tuple(shard_plan(node, shard) for node, shard in enumerate(shards))


def look_up_sizes(table: pl.DataFrame, inputs: InputList) -> pl.DataFrame:
    """Sizes and ETags of a short manifest's CSV objects; left unknown where storage doesn't say (the node will)."""
    import polars as pl

    if not inputs.is_manifest or table.height > LOOKED_UP or not table["csv"].any():
        return table
    sources = {item.line: item.source for item in inputs.read() if isinstance(item.source, Location)}
    wanted = [
        line for line, csv, bad in table.select("line", "csv", "bad").iter_rows() if csv and not bad and line in sources
    ]

    def head(line: int) -> ObjectInfo | None:
        source = sources[line]
        assert isinstance(source, Location)
        try:
            return inputs.storage.head(source)
        except StorageFailed:
            return None

    with ThreadPoolExecutor(LOOKUPS_AT_ONCE) as pool:
        found = {line: info for line, info in zip(wanted, pool.map(head, wanted), strict=True) if info is not None}
    rows = [found.get(line) for line in table["line"]]
    return table.with_columns(
        size=pl.Series([info.size if info else None for info in rows], dtype=pl.Int64),
        etag=pl.Series([info.etag if info else None for info in rows], dtype=pl.String),
    )


def divide_table(table: pl.DataFrame, *, node_count: int, min_part: int, may_cut: bool) -> pl.DataFrame:
    """The inputs' table with a row a piece: columns node, part, parts, start and end (None: to its end) are added.

    Bad lines and repeated sources weigh nothing; a repeated source stands on the node of its first mention.
    """
    import polars as pl

    weighs = [(not bad) and repeats is None for bad, repeats in table.select("bad", "duplicate_of").iter_rows()]
    sizes = [size if counts else 0 for size, counts in zip(table["size"], weighs, strict=True)]
    can_cut = table["csv"] & table["size"].is_not_null() & table["etag"].is_not_null() if may_cut else None
    divisible = (
        [bool(cut) and counts for cut, counts in zip(can_cut, weighs, strict=True)]
        if can_cut is not None
        else [False] * table.height
    )
    pieces = divide(sizes, divisible, node_count, min_part)
    first = {line: cut[0].node for line, cut in zip(table["line"], pieces, strict=True)}
    columns: dict[str, list[Any]] = {name: [] for name in ("row", "node", "part", "parts", "start", "end")}
    for row, (cut, repeats) in enumerate(zip(pieces, table["duplicate_of"], strict=True)):
        for part, piece in enumerate(cut if repeats is None else (Piece(first[repeats]),)):
            values = (row, piece.node, part, len(cut), piece.start, piece.end)
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    placed = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Int64))
    return table[placed["row"]].with_columns(placed.drop("row").get_columns())


def _recut(shards: list[pl.DataFrame], inputs: InputList) -> list[pl.DataFrame]:
    """Makes a divided CSV that was replaced since one piece again: its old parts' bounds mean nothing any more.

    Only sources of a manifest can be: a folder's ETags are part of what a service is made from.
    """
    import polars as pl

    cut = [line for shard in shards for line in shard.filter((pl.col("part") == 0) & (pl.col("parts") > 1))["line"]]
    if not cut or not inputs.is_manifest:
        return shards
    lines = set(cut)
    sources = {item.line: item.source for item in inputs.read() if item.line in lines}
    etags = dict(pl.concat([shard.select("line", "etag") for shard in shards]).iter_rows())
    replaced = [line for line in cut if _etag(inputs.storage, sources[line]) not in (None, etags[line])]
    is_replaced = pl.col("line").is_in(replaced)
    whole = [
        pl.lit(None, pl.Int64).alias("end"),
        pl.lit(1, pl.Int64).alias("parts"),
        pl.lit(None, pl.String).alias("etag"),
    ]
    return [
        shard.filter(~is_replaced | (pl.col("part") == 0)).with_columns(
            pl.when(is_replaced).then(value).otherwise(pl.col(value.meta.output_name())).alias(value.meta.output_name())
            for value in whole
        )
        for shard in shards
    ]


def _etag(storage: Storage, source: Source | None) -> str | None:
    if not isinstance(source, Location):
        return None
    try:
        return storage.head(source).etag
    except StorageFailed:
        return None
