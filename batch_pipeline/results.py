"""The results of a service, read back for people: a pandas DataFrame, or a Parquet or CSV file."""

from __future__ import annotations

import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from batch_pipeline import locations
from batch_pipeline.documents import DEEPEST, is_too_deep
from batch_pipeline.errors import InvalidLocation, ObjectNotFound, Refused, StorageFailed
from batch_pipeline.layout import OutputLayout
from batch_pipeline.locations import Location, ShareLink, parse_source
from batch_pipeline.row_errors import row_error

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from batch_pipeline.storage import Storage

FORMATS = (".parquet", ".csv")
AHEAD = 16
SMALL = 1024 * 1024
"""A result of at most so many bytes is fetched whole."""


def load_results(
    output: Location, storage: Storage, *, node_count: int | None = None, head: int | None = None
) -> pd.DataFrame:
    """All answers below an output folder, at most `head` of them: `source`, `row` (from 0, in its file), the leaves
    of the answer by dotted path, and `error` (`code: message`).

    The order is that of the result manifests; an input without a result is one row with no `row` number, after the
    results of its node. A share link stands without its signature. Raises `Refused` where the manifests are not
    (all) there; `node_count` says how many there must be.
    """
    import pandas as pd
    import pyarrow as pa

    from batch_pipeline.answers_table import conform, tables, unified

    whole_numbers: dict[str, bool] = {}
    found = list(tables(_noted(_head(output, storage, node_count, head), whole_numbers)))
    if not found:
        return pd.DataFrame({"source": [], "row": [], "error": []})
    schema = unified([table.schema for table in found])
    whole = pa.concat_tables([conform(table, schema) for table in found])
    # A missing answer must not turn the integers of a whole column into floats.
    frame: pd.DataFrame = whole.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    for name in (name for name, so in whole_numbers.items() if so and pa.types.is_string(schema.field(name).type)):
        # Some are too large for a column of theirs, not for Python.
        numbers = [None if text is None else int(text) for text in whole.column(name).to_pylist()]
        frame[name] = pd.Series(numbers, dtype=object)
    return frame


def _noted(rows: Iterable[dict[str, object]], whole_numbers: dict[str, bool]) -> Iterator[dict[str, object]]:
    """The rows; of each column is noted whether it has whole numbers alone."""
    for row in rows:
        for name, value in row.items():
            if value is not None:
                whole_numbers[name] = whole_numbers.get(name, True) and type(value) is int
        yield row


def export_results(
    output: Location, storage: Storage, target: Path, *, node_count: int | None = None, head: int | None = None
) -> int:
    """Write the table of `load_results` to a `.parquet` or `.csv` file, without holding it whole; returns its rows.

    The file is absent or complete. In CSV, lists and objects are JSON text. Raises `Refused` for another ending.
    """
    import pyarrow.parquet as pq

    from batch_pipeline.answers_table import conform, tables, unified

    check_target(target)
    with tempfile.TemporaryDirectory(prefix="batch-pipeline-") as folder:
        spooled: list[Path] = []
        schemas = []
        for table in tables(_head(output, storage, node_count, head)):
            spooled.append(Path(folder, f"{len(spooled)}.parquet"))
            schemas.append(table.schema)
            pq.write_table(table, spooled[-1])
        schema = unified(schemas or [_empty()])
        part = target.with_name(target.name + ".part")
        try:
            rows = _write((conform(pq.read_table(path), schema) for path in spooled), schema, part, target.suffix)
            shutil.move(part, target)
        except OSError as error:
            raise Refused(f"cannot write {target}: {error.strerror or error}") from error
        finally:
            part.unlink(missing_ok=True)
    return rows


def check_target(target: Path) -> None:
    """Raises `Refused` for a file that `export_results` cannot write, before anything is read."""
    if target.suffix.lower() not in FORMATS:
        raise Refused(f"cannot write {target}: its name must end in .parquet or .csv")
    if not target.absolute().parent.is_dir():
        raise Refused(f"cannot write {target}: the folder {target.absolute().parent} does not exist")


def result_rows(
    output: Location, storage: Storage, *, node_count: int | None = None, ahead: int = AHEAD
) -> Iterator[dict[str, object]]:
    """One object a row of the table; at most `ahead` small results are fetched before the caller comes to them."""
    layout = OutputLayout(output)
    for node in _nodes(output, storage, node_count):
        listed = _listed(layout, layout.result_manifest(node), storage)
        for source, lines in _fetched(listed, storage, ahead):
            yield from _answers(source, lines)
        for source, error in _errors(layout.error_manifest(node), storage):
            yield {"source": source, "row": None, "error": error}


def _head(output: Location, storage: Storage, node_count: int | None, head: int | None) -> Iterator[dict[str, object]]:
    ahead = AHEAD if head is None else min(head, AHEAD)
    return islice(result_rows(output, storage, node_count=node_count, ahead=ahead), head)


def _answers(source: str | None, answers: Iterable[Any]) -> Iterator[dict[str, object]]:
    from batch_pipeline.answers_table import flatten

    for row, answer in enumerate(answers):
        error = row_error(answer)
        leaves = answer if error is None else {key: value for key, value in answer.items() if key != "error"}
        yield {"source": source, "row": row, **flatten(leaves), "error": error}


def _fetched(
    listed: Iterator[tuple[str | None, Location]], storage: Storage, ahead: int
) -> Iterator[tuple[str | None, Iterator[Any]]]:
    """The sources of a manifest, in order, and the lines of their results; small results come from several threads."""
    pool = ThreadPoolExecutor(ahead)
    waiting: deque[tuple[str | None, Location, Future[bytes | None]]] = deque()
    try:
        while True:
            for source, location in islice(listed, ahead - len(waiting)):
                waiting.append((source, location, pool.submit(_small, location, storage)))
            if not waiting:
                return
            source, location, fetched = waiting.popleft()
            data = fetched.result()
            yield source, _json_lines(location, storage) if data is None else _parsed(location, data.splitlines())
    finally:
        pool.shutdown(cancel_futures=True)


def _small(location: Location, storage: Storage) -> bytes | None:
    """The object, or None where it is so large that it must be streamed."""
    with storage.open(location) as stream:
        return stream.read() if stream.size <= SMALL else None


def _nodes(output: Location, storage: Storage, node_count: int | None) -> Iterator[int]:
    layout = OutputLayout(output)
    node = 0
    while node_count is None or node < node_count:
        try:
            storage.head(layout.result_manifest(node))
        except ObjectNotFound as error:
            if node == 0 or node_count is not None:
                name = layout.result_manifest(node)
                raise Refused(
                    f"{name} does not exist: the service has not finished, or its results are gone"
                ) from error
            return
        yield node
        node += 1


def _listed(layout: OutputLayout, manifest: Location, storage: Storage) -> Iterator[tuple[str | None, Location]]:
    """The source and the result of each line. Raises Refused where one is not below the output folder.

    A manifest is a file like any other: whoever can write it must not choose what is read with our credentials.
    """
    folder = layout.results
    for number, record in enumerate(_json_lines(manifest, storage), 1):
        match record:
            case {"source": source, "inference-loc": str(text)}:
                pass
            case _:
                raise _foreign(manifest, number, "no line of a result manifest")
        if not text.startswith(folder.uri):
            raise Refused(
                f"{manifest}, line {number}: names a result outside of {folder}, {locations.shown(text)}, "
                "which is not read; results are read where the service has written them"
            )
        yield _shown(source), folder.child(text[len(folder.uri) :])


def _errors(manifest: Location, storage: Storage) -> Iterator[tuple[str | None, str]]:
    """The source and the error of each input that has no result."""
    if not storage.exists(manifest):  # only a node with failed inputs has one
        return
    for number, record in enumerate(_json_lines(manifest, storage), 1):
        match record:
            case {"failed_rows": _}:
                continue  # such a CSV has a result, and was read above
            case {"source": source, "error": {"code": str(code), "message": str(message)}}:
                yield _shown(source), f"{code}: {message}"
            case _:
                raise _foreign(manifest, number, "no line of an error manifest")


def _json_lines(location: Location, storage: Storage) -> Iterator[Any]:
    return _parsed(location, _lines(location, storage))


def _parsed(location: Location, lines: Iterable[bytes]) -> Iterator[Any]:
    for number, line in enumerate(lines, 1):
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise _foreign(location, number, "not JSON") from error
        if line.count(b"{") + line.count(b"[") > DEEPEST and is_too_deep(found):
            raise _foreign(location, number, f"nested too deeply (more than {DEEPEST} levels)")
        yield found


def _foreign(location: Location, number: int, what: str) -> StorageFailed:
    return StorageFailed(f"{location}, line {number}: {what}; something else has written it")


def _lines(location: Location, storage: Storage) -> Iterator[bytes]:
    """The lines of an object, streamed; the object is closed as soon as the caller stops."""
    with storage.open(location) as stream:
        rest = b""
        for chunk in stream:
            *whole, rest = (rest + bytes(chunk)).split(b"\n")
            yield from whole
        if rest:
            yield rest


def _shown(source: object) -> str | None:
    if not isinstance(source, str):
        return None
    try:
        parsed = parse_source(source, allow_local=True)
    except InvalidLocation:
        return locations.shown(source)
    return parsed.identity if isinstance(parsed, ShareLink) else source


def _write(batches: Iterator[pa.Table], schema: pa.Schema, path: Path, suffix: str) -> int:
    import pyarrow.parquet as pq

    rows = 0
    if suffix.lower() == ".parquet":
        with pq.ParquetWriter(path, schema) as writer:
            for batch in batches:
                writer.write_table(batch)
                rows += len(batch)
        return rows
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(_csv(schema.empty_table(), header=True))
        for batch in batches:
            file.write(_csv(batch, header=False))
            rows += len(batch)
    return rows


def _csv(table: pa.Table, *, header: bool) -> str:
    import pandas as pd
    import pyarrow as pa

    from batch_pipeline.answers_table import as_text

    frame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    for name, field in zip(table.column_names, table.schema, strict=True):
        if pa.types.is_nested(field.type):
            frame[name] = [as_text(value) for value in table.column(name).to_pylist()]
    return str(frame.to_csv(index=False, header=header, lineterminator="\n"))


def _empty() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([("source", pa.string()), ("row", pa.int64()), ("error", pa.string())])
