"""Makes the plan: looks up what sizes are worth knowing, divides the inputs, and writes each node's table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from batch_pipeline.division import UNKNOWN, Inputs, Pieces, divide
from batch_pipeline.errors import AccessDenied, ObjectNotFound
from batch_pipeline.inputs import InputList
from batch_pipeline.layout import OutputLayout
from batch_pipeline.locations import Location, Source
from batch_pipeline.plan import ShardPlan, TableFile, load_marks, stored_tables
from batch_pipeline.shard import Share
from batch_pipeline.storage import ObjectInfo, Storage

if TYPE_CHECKING:
    import polars as pl

    Tables = Callable[[list[str] | None], Iterator[pl.DataFrame]]
    """Gives the tables anew each time, with these columns, or all."""

LOOKED_UP = 2000
"""Manifests of up to this many CSV sources have their sizes looked up, so that large ones can be divided."""
LOOKUPS_AT_ONCE = 32


def divide_over_nodes(
    storage: Storage, layout: OutputLayout, inputs: InputList, *, node_count: int, min_part: int, may_cut: bool
) -> tuple[ShardPlan, ...]:
    """Writes each node's table and returns its share. An earlier attempt's division is kept."""
    if is_divided(storage, layout, node_count):
        shares = _kept(storage, layout, inputs, node_count)
    else:
        with stored_tables(storage, layout.inputs) as stored:
            tables: Tables = stored.read
            if may_cut and inputs.is_manifest and stored.rows <= LOOKED_UP:
                tables = _held(look_up_sizes(list(stored.read()), inputs))
            divided = divide_tables(tables, node_count=node_count, min_part=min_part, may_cut=may_cut)
            shares = _save(storage, layout, divided, node_count, is_manifest=inputs.is_manifest)
    marks = load_marks(storage, layout)
    return tuple(share.plan(node, marks) for node, share in enumerate(shares))


def is_divided(storage: Storage, layout: OutputLayout, node_count: int) -> bool:
    """Whether an earlier attempt has done so."""
    return all(storage.exists(layout.shard(node)) for node in range(node_count))


def _held(tables: list[pl.DataFrame]) -> Tables:
    return lambda columns: (table.select(columns) if columns else table for table in tables)


def look_up_sizes(tables: list[pl.DataFrame], inputs: InputList) -> list[pl.DataFrame]:
    """Sizes and ETags of a manifest's CSV objects; left unknown where storage doesn't say (the node will)."""
    import polars as pl

    wanted = [line for table in tables for line in table.filter(pl.col("csv") & ~pl.col("bad"))["line"]]
    sources = {item.line: item.source for item in inputs.read(only=wanted) if isinstance(item.source, Location)}

    def head(source: Location) -> ObjectInfo | None:
        try:
            return inputs.storage.head(source)
        except (AccessDenied, ObjectNotFound):
            return None

    with ThreadPoolExecutor(LOOKUPS_AT_ONCE) as pool:
        answers = zip(sources, pool.map(head, sources.values()), strict=True)
        found = [(line, info.size, info.etag) for line, info in answers if info is not None]
    schema = {"line": pl.UInt64, "size": pl.Int64, "etag": pl.String}
    sizes = pl.DataFrame(found, schema, orient="row")
    return [table.drop("size", "etag").join(sizes, on="line", how="left", maintain_order="left") for table in tables]


def divide_tables(tables: Tables, *, node_count: int, min_part: int, may_cut: bool) -> Iterator[pl.DataFrame]:
    """The inputs' tables with a row a piece: columns node, part, parts, start and end (None: to its end) are added.

    Bad lines and repeated sources weigh nothing; a repeated source stands on the node of its first mention.
    """

    def blocks() -> Iterator[Inputs]:
        for table in tables(["size", "etag", "duplicate_of", "bad", "csv"]):
            yield _weighed(table, may_cut=may_cut)

    first = _FirstMentions(tables)
    begin = 0
    for table, pieces in zip(tables(None), divide(blocks, node_count, min_part), strict=True):
        yield first.placed(_table_of(pieces, table, begin))
        begin += table.height


def _weighed(table: pl.DataFrame, *, may_cut: bool) -> Inputs:
    import numpy as np
    import polars as pl

    weighs = ~pl.col("bad") & pl.col("duplicate_of").is_null()
    found = table.select(
        size=pl.when(weighs).then(pl.col("size").fill_null(UNKNOWN)).otherwise(0),
        divisible=weighs & pl.col("csv") & pl.col("size").is_not_null() & pl.col("etag").is_not_null() & may_cut,
    )
    return Inputs(found["size"].to_numpy().astype(np.int64), found["divisible"].to_numpy().astype(np.bool_))


def _table_of(pieces: Pieces, table: pl.DataFrame, begin: int) -> pl.DataFrame:
    import polars as pl

    end = pl.Series(pieces.end)
    return table[pieces.input - begin].with_columns(
        node=pl.Series(pieces.node),
        part=pl.Series(pieces.part),
        parts=pl.Series(pieces.parts),
        start=pl.Series(pieces.start),
        end=end.set(end == UNKNOWN, None),
    )


class _FirstMentions:
    """The nodes of the lines that others repeat: 16 bytes for each of these."""

    def __init__(self, tables: Tables) -> None:
        import numpy as np

        lines = [table["duplicate_of"].drop_nulls().unique().to_numpy() for table in tables(["duplicate_of"])]
        self._lines = np.unique(np.concatenate(lines))
        self._nodes = np.zeros(len(self._lines), np.int64)

    def placed(self, table: pl.DataFrame) -> pl.DataFrame:
        """The table, each repeated source on the node of its first mention, which came before."""
        import numpy as np
        import polars as pl

        if not len(self._lines):
            return table
        first = table.filter((pl.col("part") == 0) & pl.col("line").is_in(self._lines))
        self._nodes[np.searchsorted(self._lines, first["line"].to_numpy())] = first["node"].to_numpy()
        places = np.searchsorted(self._lines, table["duplicate_of"].fill_null(0).to_numpy())
        of_first = pl.Series(self._nodes[places.clip(max=len(self._lines) - 1)])
        return table.with_columns(node=pl.when(pl.col("duplicate_of").is_null()).then("node").otherwise(of_first))


def _save(
    storage: Storage, layout: OutputLayout, divided: Iterator[pl.DataFrame], node_count: int, *, is_manifest: bool
) -> list[Share]:
    import polars as pl

    shares = [Share() for _ in range(node_count)]
    with ExitStack() as stack:
        files = [stack.enter_context(TableFile()) for _ in range(node_count)]
        for found in divided:
            # Only the parts of one object must be of one version; any other source is read as it is by then.
            table = found.with_columns(etag=pl.when(pl.col("parts") > 1).then("etag")) if is_manifest else found
            for node, rows in _by_node(table, node_count):
                files[node].add(rows)
                shares[node].add(rows)
        for node, file in enumerate(files):
            file.save(storage, layout.shard(node))
    return shares


def _by_node(table: pl.DataFrame, node_count: int) -> Iterator[tuple[int, pl.DataFrame]]:
    """Every node's rows; of a node that has none, no rows of the same columns."""
    found = table.partition_by("node", as_dict=True, maintain_order=True)
    for node in range(node_count):
        yield node, found.get((node,), table.clear())


def _kept(storage: Storage, layout: OutputLayout, inputs: InputList, node_count: int) -> list[Share]:
    """The shares of an earlier attempt, less the cuts of what was replaced since."""
    replaced = _replaced(storage, layout, inputs, node_count)
    shares = [Share() for _ in range(node_count)]
    for node, share in enumerate(shares):
        with stored_tables(storage, layout.shard(node)) as stored, TableFile() as file:
            for table in stored.of_node(node):
                rows = _recut(table, replaced)
                share.add(rows)
                file.add(rows)
            if replaced:
                file.save(storage, layout.shard(node))
    return shares


def _replaced(storage: Storage, layout: OutputLayout, inputs: InputList, node_count: int) -> list[int]:
    """The lines of divided CSVs that are other objects by now.

    Only sources of a manifest can be: a folder's ETags are part of what a service is made from.
    """
    import polars as pl

    if not inputs.is_manifest:
        return []
    etags: dict[int, str] = {}
    for node in range(node_count):
        with stored_tables(storage, layout.shard(node)) as stored:
            for table in stored.of_node(node, ["line", "part", "parts", "etag"]):
                cut = table.filter((pl.col("part") == 0) & (pl.col("parts") > 1))
                etags.update(cut.select("line", "etag").iter_rows())
    items = inputs.read(only=sorted(etags)) if etags else ()
    return [item.line for item in items if _etag(storage, item.source) not in (None, etags[item.line])]


def _recut(table: pl.DataFrame, replaced: list[int]) -> pl.DataFrame:
    """Makes a divided CSV that was replaced one piece again: its old parts' bounds mean nothing any more."""
    import polars as pl

    is_replaced = pl.col("line").is_in(replaced)
    whole = {"end": pl.lit(None, pl.Int64), "parts": pl.lit(1, pl.Int64), "etag": pl.lit(None, pl.String)}
    return table.filter(~is_replaced | (pl.col("part") == 0)).with_columns(
        pl.when(is_replaced).then(value).otherwise(pl.col(name)).alias(name) for name, value in whole.items()
    )


def _etag(storage: Storage, source: Source | None) -> str | None:
    if not isinstance(source, Location):
        return None
    try:
        return storage.head(source).etag
    except (AccessDenied, ObjectNotFound):
        return None
