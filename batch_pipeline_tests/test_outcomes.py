"""The ledger beside the plan's units: of a unit the last outcome counts, and only if it is of what was planned."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_pipeline.layout import OutputLayout
from batch_pipeline.ledger import WHOLE, append_composed, encode, recorded
from batch_pipeline.locations import Location
from batch_pipeline.node.job import UnitError, UnitResult
from batch_pipeline.outcomes import missing_lines, settled, to_put_together, with_outcomes
from batch_pipeline.storage import Storage

PARTS = {1: 1, 2: 1, 3: 2, 4: 3}
UNITS = [(line, part) for line, parts in PARTS.items() for part in range(parts)]
DIGEST = {line: bytes([line]) * 32 for line in PARTS}
OUTCOMES = st.one_of(
    st.builds(
        lambda unit, digest, etag, size: UnitResult(
            unit[0], digest or DIGEST[unit[0]].hex(), unit[1], etag, size, size, 0
        ),
        st.sampled_from([*UNITS, *((line, WHOLE) for line in PARTS)]),
        st.sampled_from(["", "", "", "ff" * 32]),
        st.sampled_from(["now", "now", "now", "before"]),
        st.integers(0, 9),
    ),
    st.builds(lambda unit: UnitError(unit[0], DIGEST[unit[0]].hex(), unit[1], "code", "why"), st.sampled_from(UNITS)),
)


def planned() -> pl.DataFrame:
    columns = {"line": pl.UInt64, "digest": pl.Binary, "part": pl.Int64, "parts": pl.Int64, "etag": pl.String}
    rows = [(line, DIGEST[line], part, PARTS[line], "now" if PARTS[line] > 1 else None) for line, part in UNITS]
    return pl.DataFrame(rows, columns, orient="row")


def ledger_of(folder: Path) -> OutputLayout:
    return OutputLayout(Location("", f"{folder}/"[1:], "file"))


def write(folder: Path, name: str, outcomes: list[UnitResult | UnitError]) -> None:
    (folder / "_batch/ledger").mkdir(parents=True, exist_ok=True)
    (folder / "_batch/ledger" / name).write_bytes(b"".join(map(encode, outcomes)))


def counted(outcomes: list[UnitResult | UnitError], line: int, part: int) -> UnitResult | UnitError | None:
    """What counts of a unit, spelt out."""
    of_line = [one for one in outcomes if one.line == line]
    if of_line and of_line[-1].part == WHOLE:
        return of_line[-1]
    of_unit = [one for one in of_line if one.part == part]
    if not of_unit or isinstance(of_unit[-1], UnitError):
        return of_unit[-1] if of_unit else None
    last = of_unit[-1]
    fits = last.digest == DIGEST[line].hex() and (PARTS[line] == 1 or last.etag == "now")
    return last if fits else None


@settings(deadline=None)
@given(st.lists(OUTCOMES, max_size=30), st.integers(1, 30))
def test_of_a_unit_the_last_outcome_counts(tmp_path_factory, outcomes, cut):
    folder = tmp_path_factory.mktemp("out")
    for place in range(0, len(outcomes), cut):
        write(folder, f"0001-0-abc-{place:06d}.jsonl", outcomes[place : place + cut])
    frames = list(recorded(Storage(allow_local=True), ledger_of(folder), ""))
    units = with_outcomes(planned(), pl.concat(frames) if frames else None)
    found = {unit: counted(outcomes, *unit) for unit in UNITS}
    for row in units.iter_rows(named=True):
        one = found[row["line"], row["part"]]
        assert row["code"] == (one.code if isinstance(one, UnitError) else None)
        assert row["result_size"] == (one.size if isinstance(one, UnitResult) else None)
        assert row["whole"] == (one is not None and one.part == WHOLE)
    of_line = {line: [found[line, part] for part in range(parts)] for line, parts in PARTS.items()}
    assert missing_lines(units).to_list() == [line for line, ones in of_line.items() if None in ones]
    composed = {line: ones for line, ones in of_line.items() if PARTS[line] > 1 and not _whole(ones)}
    failed = {line for line, ones in composed.items() if any(isinstance(one, UnitError) for one in ones)}
    known = settled(units)
    assert sorted(known["line"]) == sorted(({*PARTS} - {*composed}) | failed)
    assert set(known.filter(pl.col("line").is_in(failed))["code"]) <= {"code"}
    assert set(to_put_together(units)["line"]) == {*composed} - failed


def _whole(ones: list[UnitResult | UnitError | None]) -> bool:
    return all(one is not None and one.part == WHOLE for one in ones)


def test_a_node_reads_its_own_records_and_those_of_what_was_put_together(tmp_path):
    storage, layout = Storage(allow_local=True), ledger_of(tmp_path)
    for node in (1, 11, 2):
        write(tmp_path, f"0001-{node}-abc-000000.jsonl", [UnitResult(node, "00" * 32, 0, "etag", 5)])
    append_composed(storage, layout, "", [UnitResult(7, "00" * 32, WHOLE, "etag", 5)], attempt=1)
    lines = {
        node: [line for found in recorded(storage, layout, "", node) for line in found["line"]] for node in (1, 2, 3)
    }
    assert lines == {1: [1, 7], 2: [2, 7], 3: [7]}
    assert sum(found.height for found in recorded(storage, layout, "")) == 4
