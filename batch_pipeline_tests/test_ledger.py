"""The node's pen: whatever keeps a record from storage stops the node, and is not forgotten."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from batch_pipeline import ledger
from batch_pipeline.layout import OutputLayout
from batch_pipeline.ledger import LedgerWriter, append_composed, recorded
from batch_pipeline.locations import Location
from batch_pipeline.node.job import UnitError, UnitResult
from batch_pipeline.storage import Storage


class Broken(Storage):
    def write(self, *_: object, **__: object) -> str:
        raise OverflowError("nobody expects this")


def result(line: int) -> UnitResult:
    return UnitResult(line, "00" * 32, 0, "etag", 1)


def test_a_record_that_did_not_reach_storage_stops_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "FLUSH_SECONDS", 0.01)
    layout = OutputLayout(Location("", f"{tmp_path}/".lstrip("/"), "file"))

    def work() -> None:
        with LedgerWriter(Broken(allow_local=True), layout, attempt=1, node=0) as writer:
            writer.record(result(1))
            until = time.monotonic() + 30
            while time.monotonic() < until:
                writer.record(result(2))
                time.sleep(0.01)

    with pytest.raises(OverflowError, match="nobody expects this"):
        work()


def test_no_object_is_larger_than_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "FLUSH_SECONDS", 60)
    layout = OutputLayout(Location("", f"{tmp_path}/".lstrip("/"), "file"))
    storage = Storage(allow_local=True)
    errors = [UnitError(line, "00" * 32, 0, "bad_source", "x" * 4_000_000) for line in range(1, 21)]
    with LedgerWriter(storage, layout, attempt=1, node=0) as writer:
        for error in errors:
            writer.record(error)
    append_composed(storage, layout, "", errors, attempt=1)
    found = [line for table in recorded(storage, layout, "") for line in table["line"].to_list()]
    assert found == [*range(1, 21), *range(1, 21)]
