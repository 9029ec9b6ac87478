"""Blocks and parts: no row is lost, doubled or cut, however the bytes arrive."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_pipeline.errors import InputFailed
from batch_pipeline.node import csv_blocks, csv_regular

CONTENT = st.text(alphabet='a,"\n\r1', max_size=60).map(str.encode)


def chunked(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.fixture(autouse=True, params=[2, 2**16], ids=["few-rows", "many-rows"])
def most_rows(request: pytest.FixtureRequest) -> Iterator[int]:
    """Every test, with blocks that may have few rows and with blocks of many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_blocks, "MOST_ROWS", request.param)
        yield request.param


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CONTENT, st.integers(1, 20), st.integers(1, 20))
def test_blocks_are_the_bytes_cut_at_line_ends(most_rows: int, data: bytes, chunk: int, block: int) -> None:
    found = list(csv_blocks.blocks(chunked(data, chunk), multiline=False, block_bytes=block))
    assert b"".join(found) == data
    assert all(part.endswith(b"\n") for part in found[:-1])
    assert all(found)
    assert all(part.count(b"\n") <= most_rows for part in found)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CONTENT, st.lists(st.integers(1, 60), max_size=4), st.integers(1, 7))
def test_parts_together_are_the_whole(data: bytes, cuts: list[int], chunk: int) -> None:
    edges = sorted({0, *(cut for cut in cuts if cut < len(data))})
    bounds: list[tuple[int, int | None]] = [*pairwise(edges), (edges[-1], None)]
    parts = []
    for start, end in bounds:
        chunks = chunked(data[max(0, start - 1) :], chunk)
        part = b"".join(csv_blocks.part_of(chunks, start, end))
        starts = [0, *(at + 1 for at, byte in enumerate(data) if byte == 10)]
        mine = [at for at in starts if at >= start and (end is None or at < end) and at < len(data)]
        assert len(csv_blocks.lines(part)) == len(mine)
        parts.append(part)
    assert b"".join(parts) == data


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet='a,"\n', max_size=60), st.integers(1, 20), st.integers(1, 20))
def test_multiline_blocks_cut_where_the_csv_module_ends_rows(text: str, chunk: int, block: int) -> None:
    data = text.encode()
    found = list(csv_blocks.blocks(chunked(data, chunk), multiline=True, block_bytes=block))
    assert b"".join(found) == data
    rows = [row for part in found for row in csv.reader(io.StringIO(part.decode(), newline=""))]
    assert rows == list(csv.reader(io.StringIO(text, newline="")))


def test_a_bom_is_dropped_wherever_the_chunks_end() -> None:
    for size in (1, 2, 3, 10):
        assert b"".join(csv_blocks.without_bom(chunked(b"\xef\xbb\xbf1,2\n", size))) == b"1,2\n"
    assert b"".join(csv_blocks.without_bom([b"1"])) == b"1"
    assert b"".join(csv_blocks.without_bom([])) == b""


def test_a_row_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_blocks, "LONGEST_ROW", 100)
    with pytest.raises(InputFailed) as refused:
        list(csv_blocks.blocks([b"x" * 30] * 4, multiline=False, block_bytes=20))
    assert refused.value.code == "row_too_long"


@pytest.mark.parametrize("size", [1, 2**16 + 1, 2**18 - 1, 2**18, 2**18 + 1, 2**20 + 7])
def test_line_ends_are_counted_in_blocks_of_any_size(size: int) -> None:
    for block in (b"\n" * size, (b"1,2\n" * size)[:size], b"x" * (size - 1) + b"\n", b"\n" + b"x" * (size - 1)):
        ends = block.count(b"\n")
        assert csv_regular.end_of_lines(block, ends) == size
        if ends > 1:
            assert csv_regular.end_of_lines(block, ends - 1) == block.rfind(b"\n", 0, block.rfind(b"\n")) + 1


def test_the_first_rows_of_a_block() -> None:
    block = b'"a\nb",1\nc,2\nd,3\n'
    assert csv_blocks.first_rows(block, 2, multiline=True) == b'"a\nb",1\nc,2\n'
    assert csv_blocks.first_rows(block, 1, multiline=False) == b'"a\n'
    assert csv_blocks.first_row(b"a,b", multiline=False) == (b"a,b", b"")
