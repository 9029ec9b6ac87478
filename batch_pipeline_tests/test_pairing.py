"""The input list read again: each input with its rows, whatever was added to the folder or taken from it since."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_pipeline.errors import InputMissing
from batch_pipeline.inputs import InputList
from batch_pipeline.locations import Location
from batch_pipeline.pairing import paired
from batch_pipeline.storage import Storage
from batch_pipeline.survey import Survey


def surveyed(inputs: InputList, rows: int) -> list[pl.DataFrame]:
    with Survey(inputs) as survey:
        return list(pl.concat(survey.tables()).iter_slices(rows))


@settings(deadline=None)
@given(
    st.sets(st.integers(0, 99), min_size=1, max_size=30),
    st.sets(st.integers(0, 99), max_size=10),
    st.data(),
    st.integers(1, 30),
)
def test_what_was_added_to_a_folder_is_passed_over_and_what_was_removed_does_not_come(
    tmp_path_factory, before, added, data, rows
):
    folder = tmp_path_factory.mktemp("in")
    for number in before:
        (folder / f"{number:02}").write_text("x")
    inputs = InputList(Storage(allow_local=True), Location("", f"{folder}/"[1:], "file"), allow_local=True)
    tables = surveyed(inputs, rows)
    # Of the rows that are looked at together some stay: a whole table of them is not taken away.
    removed = data.draw(st.sets(st.sampled_from(sorted(before)))) if rows >= len(before) else set()
    for number in removed:
        (folder / f"{number:02}").unlink()
    for number in added:
        (folder / f"{number:02}").write_text("y")
    found = [(item.name, row["line"]) for item, (row,) in paired(tables, inputs)]
    lines = {number: line for line, number in enumerate(sorted(before), start=1)}
    assert found == [(f"{number:02}", lines[number]) for number in sorted(before - (removed - added))]


@pytest.mark.parametrize("start", [0, 2**60, 2**63, 2**64 - 3])
def test_digests_that_begin_nearly_alike_are_told_apart(start):
    digests = [(start + number).to_bytes(8, "little") + bytes(24) for number in range(3)]
    table = pl.DataFrame({"line": [1, 2, 3], "digest": digests}, {"line": pl.UInt64, "digest": pl.Binary})
    # A folder from which the first of them was removed; no names have such digests.
    folder: Any = SimpleNamespace(is_manifest=False, read=lambda: [SimpleNamespace(digest=one) for one in digests[1:]])
    assert [row["line"] for _, (row,) in paired([table], folder)] == [2, 3]


def test_the_parts_of_a_divided_input_come_together(tmp_path):
    for name in "abc":
        (tmp_path / name).write_text("x")
    folder = InputList(Storage(allow_local=True), Location("", f"{tmp_path}/"[1:], "file"), allow_local=True)
    listing = tmp_path / "list.manifest"
    listing.write_text("".join(f'{{"source": "s3://bucket/{name}"}}\n\n' for name in "abc"))
    manifest = InputList(folder.storage, Location("", str(listing)[1:], "file"), allow_local=True)
    for inputs in (folder, manifest):
        (table,) = surveyed(inputs, 10)
        divided = table[[0, 1, 1, 1, 2]].with_columns(part=pl.Series([0, 0, 1, 2, 0]))
        found = [[row["part"] for row in rows] for _, rows in paired([divided, divided.clear()], inputs)]
        assert found[:3] == [[0], [0, 1, 2], [0]]


def test_of_a_manifest_only_the_lines_that_are_wanted_are_read_from_where_they_begin(tmp_path):
    listing = tmp_path / "list.manifest"
    lines = [b'{"source": "s3://bucket/%d"}\n' % number for number in range(9)]
    listing.write_bytes(b"".join(lines))
    inputs = InputList(Storage(allow_local=True), Location("", str(listing)[1:], "file"))
    (table,) = surveyed(inputs, 10)
    wanted = table.filter(pl.col("line").is_in([5, 8]))
    listing.write_bytes(b"x" * len(lines[0]) * 3 + b"".join(lines[3:8]))
    items = [item for item, _ in paired([wanted], inputs, offset=3 * len(lines[0]), line=4)]
    assert [(item.line, item.name) for item in items] == [(5, "4"), (8, "7")]
    listing.write_bytes(b"".join(reversed(lines)))
    with pytest.raises(InputMissing, match="rewritten"):
        list(paired([wanted], inputs))


def test_nothing_is_listed_for_nothing(tmp_path):
    gone = InputList(Storage(allow_local=True), Location("", str(tmp_path / "no.manifest")[1:], "file"))
    assert list(paired([], gone)) == []
