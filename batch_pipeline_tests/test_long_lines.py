"""A line of a manifest without end: refused, with its number, and not read."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch_pipeline.errors import InputMissing
from batch_pipeline.inputs import InputList
from batch_pipeline.locations import Location
from batch_pipeline.manifest import LONGEST_LINE
from batch_pipeline.storage import Storage
from batch_pipeline_tests.faults.fuzzing import bounded_memory
from batch_pipeline_tests.places import Place

GOOD = b'{"source": "s3://bucket/a.csv"}\n'


def listing(folder: Path, *parts: bytes, size: int | None = None) -> InputList:
    """A manifest of these parts; `size`: with nothing but zeros after them, up to so many bytes."""
    path = folder / "list.manifest"
    path.write_bytes(b"".join(parts))
    if size is not None:
        with path.open("ab") as file:
            file.truncate(size)
    return InputList(Storage(allow_local=True), Location("", str(path)[1:], "file"))


def padded(size: int) -> bytes:
    """A good line of so many bytes, without its end."""
    line = GOOD.rstrip()[:-1] + b', "note": "'
    return line + b"x" * (size - len(line) - 2) + b'"}'


@pytest.mark.parametrize("end", [b"", b"\n", b"\n" + GOOD])
@pytest.mark.parametrize("before", [b"", GOOD, b"\n" + 50_000 * GOOD])
def test_a_line_may_be_so_long_and_no_longer(tmp_path: Path, before: bytes, end: bytes) -> None:
    inputs = listing(tmp_path, before, padded(LONGEST_LINE), end)
    wanted = before.count(b"source") + 1 + end.count(b"source")
    assert sum(len(frame) for frame in inputs.columns()) == wanted
    assert sum(1 for _ in inputs.read()) == wanted
    inputs = listing(tmp_path, before, padded(LONGEST_LINE + 1), end)
    number = before.count(b"\n") + 1
    says = rf"list.manifest, line {number}: the line has more than 4 MiB"
    for read in (inputs.columns, inputs.read):
        with pytest.raises(InputMissing, match=says):
            list(read())


def test_a_line_without_end_is_not_read_whole(tmp_path: Path) -> None:
    inputs = listing(tmp_path, GOOD, size=20 << 30)
    for read in (inputs.columns, inputs.read):
        with bounded_memory(200), pytest.raises(InputMissing, match="line 2: "):
            list(read())


def test_a_service_is_refused_and_has_written_nothing(tmp_path: Path) -> None:
    place = Place.at(tmp_path)
    (tmp_path / "list.manifest").write_bytes(GOOD + padded(LONGEST_LINE + 1))
    with pytest.raises(InputMissing, match=r"list.manifest, line 2: "):
        place.run(input_path=f"file://{tmp_path}/list.manifest")
    assert not place.files()


def test_long_hosts_make_long_lines_and_no_long_messages(tmp_path: Path) -> None:
    """Together they would be more than an object of the ledger may hold."""
    place = Place.at(tmp_path)
    hosts = [f"{number:02}" + "h" * 3_900_000 for number in range(20)]
    links = [f"https://{host}/a.csv?Signature=SECRET" for host in hosts[:17]]
    wrong = [f"https://{hosts[17]}/a.csv", f"{hosts[18]}/a.csv", f"s3://{hosts[19]}/a.csv"]
    summary = place.run(input_path=place.manifest(*links, *wrong), error_threshold=1)
    assert (summary.state, summary.failed) == ("finished", 20)
    for error in summary.first_errors:
        assert (error["code"], len(error["message"]) < 500) == ("bad_source", True)
        assert "SECRET" not in error["message"]
    assert "has a host of 3900002 characters; 253 is the most" in summary.first_errors[0]["message"]


def test_a_share_link_longer_than_any_key_makes_is_shown_shortened(tmp_path: Path) -> None:
    place = Place.at(tmp_path)
    link = f"https://b.s3.amazonaws.com/{'k' * 3_000_000}/a.csv?Signature=SECRET"
    summary = place.run(input_path=place.manifest(link), error_threshold=1)
    (error,) = summary.first_errors
    assert f"has {len(link)} characters; 16384 is the most" in error["message"]
    assert len(str(error)) < 10_000
    assert "SECRET" not in str(error)
