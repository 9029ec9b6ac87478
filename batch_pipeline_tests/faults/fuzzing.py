"""Bytes as a stranger may send them: valid ones, damaged; and what holds for whatever reads them.

`FUZZ_EXAMPLES` says how many of each kind are tried (`make test-faults`: thousands, other ones each time); without it a
few, the same ones each time.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

_LONG = os.environ.get("FUZZ_EXAMPLES")
_F = TypeVar("_F", bound=Callable[..., Any])
_NUMBERS = re.compile(rb"\d+")
_ODD_NUMBERS = [b"0", b"-1", b"1e400", b"4294967296", b"9" * 25, b"9" * 5000, b"0.1", b"NaN"]
_DEPTHS = [3, 200, 240, 260, 500, 1100, 50_000]
SECONDS = 60.0
"""The longest that one example may take: many times what the slowest does, also on a busy machine."""


def examples(usual: int, *, share: float = 1.0) -> Callable[[_F], _F]:
    """So many examples, or that share of FUZZ_EXAMPLES where one is slow."""
    return settings(
        max_examples=max(1, int(int(_LONG) * share)) if _LONG else usual,
        derandomize=not _LONG,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def ends(seconds: float = SECONDS) -> Iterator[None]:
    """Fails where the block takes longer. It is interrupted, unless it hangs outside of Python."""

    def hang(*_: object) -> None:
        raise AssertionError(f"had not ended after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def bounded_memory(mebibytes: int) -> Iterator[None]:
    """Fails where this process at any time within the block had so much more memory than before it."""
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on
    yield
    grown = _memory("VmHWM") - before
    assert grown < mebibytes, f"{grown} MiB more"


def _memory(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) // 1024


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes], words: Sequence[bytes] = ()) -> bytes:
    """One of the seeds with a few things done to it; `words` are what is worth putting in anywhere."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 6))):
        change = draw(st.sampled_from(_CHANGES))
        data = change(draw, data, seeds, words)
    return data


def _place(draw: st.DrawFn, data: bytes) -> int:
    return draw(st.integers(0, len(data)))


def _span(draw: st.DrawFn, data: bytes) -> tuple[int, int]:
    start = _place(draw, data)
    return start, min(len(data), start + draw(st.sampled_from([1, 2, 4, 8, 30, 300])))


def _flipped(draw: st.DrawFn, data: bytes, _: object, __: object) -> bytes:
    start, end = _span(draw, data)
    return data[:start] + draw(st.binary(min_size=end - start, max_size=end - start)) + data[end:]


def _bit(draw: st.DrawFn, data: bytes, _: object, __: object) -> bytes:
    if not data:
        return data
    at = draw(st.integers(0, len(data) - 1))
    return data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]


def _inserted(draw: st.DrawFn, data: bytes, _: object, words: Sequence[bytes]) -> bytes:
    at = _place(draw, data)
    new = draw(st.sampled_from(words) if words else st.binary(min_size=1, max_size=8))
    return data[:at] + new + data[at:]


def _removed(draw: st.DrawFn, data: bytes, _: object, __: object) -> bytes:
    start, end = _span(draw, data)
    return data[:start] + data[end:]


def _cut(draw: st.DrawFn, data: bytes, _: object, __: object) -> bytes:
    return data[: _place(draw, data)]


def _repeated(draw: st.DrawFn, data: bytes, _: object, __: object) -> bytes:
    start, end = _span(draw, data)
    return data[:end] + data[start:end] * draw(st.sampled_from([1, 2, 30, 1000])) + data[end:]


def _spliced(draw: st.DrawFn, data: bytes, seeds: Sequence[bytes], _: object) -> bytes:
    other = draw(st.sampled_from(seeds))
    return data[: _place(draw, data)] + other[_place(draw, other) :]


def _extreme(draw: st.DrawFn, data: bytes, _: object, __: object) -> bytes:
    """A number in a text, or a field of a header, that is as large or small as can be written there."""
    numbers = list(_NUMBERS.finditer(data))
    if numbers and draw(st.booleans()):
        found = draw(st.sampled_from(numbers))
        return data[: found.start()] + draw(st.sampled_from(_ODD_NUMBERS)) + data[found.end() :]
    at, size = _place(draw, data), draw(st.sampled_from([1, 2, 4, 8]))
    return data[:at] + draw(st.sampled_from([b"\0", b"\xff", b"\x7f", b"\x80"])) * size + data[at + size :]


def _nested(draw: st.DrawFn, data: bytes, _: object, __: object) -> bytes:
    at, depth = _place(draw, data), draw(st.sampled_from(_DEPTHS))
    opening, closing = draw(st.sampled_from([(b"[", b"]"), (b'{"a":', b"}"), (b"- ", b"")]))
    end = draw(st.integers(at, len(data)))
    return data[:at] + opening * depth + (data[at:end] or b"1") + closing * depth + data[end:]


_CHANGES = [_flipped, _bit, _inserted, _removed, _cut, _repeated, _spliced, _extreme, _nested]
