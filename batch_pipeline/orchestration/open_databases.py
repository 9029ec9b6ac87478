"""SQLite files of the instance, held open while a run is at work.

Dagster opens a connection for each event and closes it. Whoever closes the last connection to a file in WAL mode
writes the log back into the file, twice to the disk; with one more connection open, nobody does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.runs import SqliteRunStorage


@contextmanager
def databases_open(instance: dg.DagsterInstance, run_id: str | None = None) -> Iterator[None]:
    """The files of the instance and, with `run_id`, of this run's events; none where they are kept elsewhere."""
    with ExitStack() as stack:
        for file in _files(instance, run_id):
            if file.exists():
                connection = stack.enter_context(closing(sqlite3.connect(file)))
                # A look alone opens the file, and leaves no lock behind.
                connection.execute("SELECT 1 FROM sqlite_master").fetchall()
        yield


def _files(instance: dg.DagsterInstance, run_id: str | None) -> Iterator[Path]:
    events, runs = instance.event_log_storage, instance.run_storage
    if isinstance(events, SqliteEventLogStorage):
        for shard in filter(None, (INDEX_SHARD_NAME, run_id)):
            yield Path(events.path_for_shard(shard))
    if isinstance(runs, SqliteRunStorage):
        yield Path(runs._conn_string.removeprefix("sqlite:///"))
