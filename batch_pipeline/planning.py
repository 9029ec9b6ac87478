"""The plan of a service, kept under `_batch/plan/`: which node does which inputs, named by line and digest alone."""

from __future__ import annotations

import hashlib
import io
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson

from batch_pipeline.division import Piece, divide
from batch_pipeline.errors import InputMissing, ObjectNotFound, StorageFailed
from batch_pipeline.inputs import Input, InputList
from batch_pipeline.layout import RESULT_SUFFIX, OutputLayout, result_digest
from batch_pipeline.locations import Location, ShareLink, Source
from batch_pipeline.node.job import Progress, Unit
from batch_pipeline.storage import ObjectInfo, Storage

if TYPE_CHECKING:
    import polars as pl

LOOKED_UP = 2000
"""Manifests of up to this many CSV sources have their sizes looked up, so that large ones can be divided."""
LOOKUPS_AT_ONCE = 32


@dataclass(frozen=True)
class Survey:
    """What one pass over the input list found. `table` has one row an input, in order:

    line, offset, digest (SHA-256 of the source), size and etag (None where unknown), duplicate_of (the line that
    lists the same source first), suffix (put into the result's name where another has it), result (digest of the
    result's name), bad (the line names no input), csv (its name ends in .csv).
    """

    table: pl.DataFrame
    digest: str
    """SHA-256 of the input list: what the service was made from."""

    @property
    def inputs(self) -> int:
        return self.table.height


def survey(inputs: InputList) -> Survey:
    """Reads the whole input list once. Raises InputMissing where there is no input at all."""
    import polars as pl

    lines, offsets = array("Q"), array("Q")
    digests: list[bytes] = []
    sizes: list[int | None] = []
    etags: list[str | None] = []
    duplicates: list[int | None] = []
    suffixes: list[str] = []
    results: list[bytes] = []
    bad, csv = array("b"), array("b")
    content = hashlib.sha256()
    names = _Names()
    for item in inputs.read():
        content.update(b"%d\0%d\0%s" % (item.line, len(item.content), item.content))
        suffix, duplicate_of, result = names.take(item)
        lines.append(item.line)
        offsets.append(item.offset)
        digests.append(item.digest)
        sizes.append(item.size)
        etags.append(item.etag)
        duplicates.append(duplicate_of)
        suffixes.append(suffix)
        results.append(result)
        bad.append(item.error is not None)
        csv.append(item.name.lower().endswith(".csv"))
    if not lines:
        what = "lists no input" if inputs.is_manifest else "holds no object"
        raise InputMissing(f"input_path {inputs.location} {what}; there is nothing to infer on")
    table = pl.DataFrame(
        {
            "line": pl.Series(lines, dtype=pl.UInt64),
            "offset": pl.Series(offsets, dtype=pl.UInt64),
            "digest": pl.Series(digests, dtype=pl.Binary),
            "size": pl.Series(sizes, dtype=pl.Int64),
            "etag": pl.Series(etags, dtype=pl.String),
            "duplicate_of": pl.Series(duplicates, dtype=pl.UInt64),
            "suffix": pl.Series(suffixes, dtype=pl.String),
            "result": pl.Series(results, dtype=pl.Binary),
            "bad": pl.Series(bad, dtype=pl.Int8).cast(pl.Boolean),
            "csv": pl.Series(csv, dtype=pl.Int8).cast(pl.Boolean),
        }
    )
    return Survey(table, content.hexdigest())


class _Names:
    """Gives each source its result's name, so that two different sources never share one."""

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[int, str, bytes]] = {}
        self._taken: set[bytes] = set()

    def take(self, item: Input) -> tuple[str, int | None, bytes]:
        """The suffix, the line of the same source's first mention, and the result's digest."""
        if item.error is not None:
            return "", None, b""
        key = item.digest if item.source is None or isinstance(item.source, Location) else _url_digest(item.source)
        known = self._first.get(key)
        if known is not None:
            line, suffix, result = known
            return suffix, line, result
        suffix = ""
        result = result_digest(result_name(item.name, suffix))
        length = 8
        while result in self._taken:
            suffix = "-" + hashlib.sha256(orjson.loads(item.token).encode()).hexdigest()[:length]
            result = result_digest(result_name(item.name, suffix))
            length += 8
        self._taken.add(result)
        self._first[key] = (item.line, suffix, result)
        return suffix, None, result


def _url_digest(link: ShareLink) -> bytes:
    """Two links to one object are two sources, which may have two outcomes."""
    return hashlib.sha256(link.url.encode()).digest()


def result_name(name: str, suffix: str) -> str:
    """Where below `infer-result/` the result of an input of this name stands."""
    return f"{name}{suffix}{RESULT_SUFFIX}"


@dataclass(frozen=True)
class ShardPlan:
    """One node's share: the range of the input list it lies in, and how much it is."""

    node: int
    first_line: int
    last_line: int
    offset: int
    """The byte of the manifest where `first_line` begins; 0 for a folder."""
    units: int
    """Pieces of work: a divided CSV is several, a bad line and a repeated source are none."""
    inputs: int
    """Lines that this node's manifests list."""
    size: int
    """Known bytes."""


@dataclass(frozen=True)
class Plan:
    """What the nodes and the last step need to know. Holds no source, no secret, no signature."""

    service: str
    model: str
    model_digest: str
    request_path: str
    mapping: dict[str, Any] | None
    csv: dict[str, Any]
    join_input: bool
    input_path: str
    input_etag: str | None
    inputs: int
    shards: tuple[ShardPlan, ...]
    started: float
    """Unix time of the attempt's start."""
    attempt: int


def save_plan(storage: Storage, layout: OutputLayout, plan: Plan) -> None:
    storage.write(layout.plan, orjson.dumps(asdict(plan)))


def load_plan(storage: Storage, layout: OutputLayout) -> Plan:
    record = orjson.loads(storage.read(layout.plan))
    shards = tuple(ShardPlan(**shard) for shard in record.pop("shards"))
    return Plan(shards=shards, **record)


def save_table(storage: Storage, location: Location, table: pl.DataFrame) -> None:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    storage.write(location, buffer.getvalue())


def load_table(storage: Storage, location: Location) -> pl.DataFrame:
    import polars as pl

    return pl.read_parquet(io.BytesIO(storage.read(location)))


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


def shard_plan(node: int, shard: pl.DataFrame) -> ShardPlan:
    """The range and the amount of one node's rows of a divided table."""
    if not shard.height:
        return ShardPlan(node, 0, 0, 0, 0, 0, 0)
    listed = shard.filter(shard["part"] == 0)
    work = shard.filter(~shard["bad"] & shard["duplicate_of"].is_null())
    size = sum(
        (end if end is not None else size or 0) - start
        for size, start, end in work.select("size", "start", "end").iter_rows()
    )
    first = shard.row(0, named=True)
    return ShardPlan(node, first["line"], shard["line"][-1], first["offset"], work.height, listed.height, size)


def shard_rows(shard: pl.DataFrame, inputs: InputList, plan: ShardPlan) -> Iterator[tuple[Input, list[dict[str, Any]]]]:
    """Each input of a shard, read from the input list again, with its rows of the shard's table.

    An object added to the folder meanwhile is passed over; one removed from it does not come.
    """
    lines = shard["line"]
    wanted = lines if inputs.is_manifest else shard["digest"]
    places = {key: place for place, key in reversed(list(enumerate(wanted)))}
    for item in inputs.read(offset=plan.offset, line=plan.first_line) if places else ():
        if inputs.is_manifest and item.line > plan.last_line:
            return
        place = places.pop(item.line if inputs.is_manifest else item.digest, None)
        if place is not None:
            rows = [shard.row(place, named=True)]
            while place + len(rows) < shard.height and lines[place + len(rows)] == rows[0]["line"]:
                rows.append(shard.row(place + len(rows), named=True))
            if rows[0]["digest"] != item.digest:
                raise InputMissing(f"input_path {inputs.location} was rewritten after it was read; run again")
            yield item, rows
        if not places:
            return


def units(pairs: Iterable[tuple[Input, list[dict[str, Any]]]], layout: OutputLayout) -> Iterator[Unit]:
    """The units of work of a shard: not its bad lines, and a repeated source once."""
    for item, rows in pairs:
        for row in rows:
            if item.source is None or row["duplicate_of"] is not None:
                continue
            whole = layout.result(result_name(item.name, row["suffix"]))
            yield Unit(
                line=row["line"],
                digest=row["digest"].hex(),
                source=item.source,
                # A result that no store takes is refused as what it is, not after all its parts are made.
                result=whole if row["parts"] == 1 or whole.too_long else layout.part(row["line"], row["part"]),
                part=row["part"],
                parts=row["parts"],
                start=row["start"],
                end=row["end"],
                size=row["size"],
                etag=row["etag"],
            )


def progress_before(shard: pl.DataFrame, done: set[tuple[int, int]]) -> Progress:
    """How far a node is before it starts: bad lines and repeated sources are no work, and earlier attempts did some."""
    listed = shard.filter(shard["part"] == 0)
    bad = int(listed["bad"].sum())
    repeated = listed.height - listed["duplicate_of"].null_count()
    return Progress(done=bad + repeated + sum(part == 0 for _, part in done), failed=bad, units=listed.height)


def renew_offsets(storage: Storage, layout: OutputLayout, found: pl.DataFrame) -> None:
    """Keeps the first attempt's table, but for where each manifest line begins: a renewed share link may be longer.

    An attempt that ended before it had written its table did nothing else either.
    """
    try:
        kept = load_table(storage, layout.inputs)
    except ObjectNotFound:
        kept = found
    save_table(storage, layout.inputs, kept.with_columns(offset=found["offset"]))


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
