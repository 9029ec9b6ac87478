"""The index of what was taken: a set of digests, whatever they are, and what a listing leaves of it."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from batch_pipeline.locations import Location
from batch_pipeline.storage import ObjectInfo
from batch_pipeline.triggers.taken import DIGEST_BYTES, Comparison, Taken, digest

# Digests that differ only in zero bytes, or end in them, among others.
DIGESTS = st.sets(
    st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES)
    | st.integers(0, 2).map(lambda number: bytes([number]).ljust(DIGEST_BYTES, b"\0"))
    | st.integers(0, 2).map(lambda number: bytes([number]).rjust(DIGEST_BYTES, b"\0"))
)


def info(number: int, etag: str = "e") -> ObjectInfo:
    return ObjectInfo(Location("bucket", f"{number}"), 1, etag, datetime(2026, 1, 1, tzinfo=UTC))


@given(DIGESTS, DIGESTS, DIGESTS)
@settings(deadline=None)
def test_it_is_a_set(some: set[bytes], more: set[bytes], asked: set[bytes]) -> None:
    taken = Taken().union(some).union(more)
    assert taken.packed == b"".join(sorted(some | more))
    assert len(taken) == len(some | more)
    wanted = list(asked | some)
    assert list(taken.holds(wanted)) == [one in some | more for one in wanted]
    assert all(one in Taken(taken.packed) for one in some)


@given(st.sets(st.integers(0, 2500)), st.sets(st.integers(0, 2500)), st.integers(0, 2500))
@settings(deadline=None)
def test_a_listing_says_what_is_new_and_what_is_gone(before: set[int], now: set[int], rewritten: int) -> None:
    taken = Taken().union(digest(info(number).location, "e") for number in before)
    listing = [info(number, "other" if number == rewritten else "e") for number in sorted(now)]
    comparison = Comparison(taken)
    fresh = list(comparison.fresh(iter(listing)))
    assert fresh == [one for one in listing if one.etag == "other" or int(one.location.key) not in before]
    there = {number for number in before & now if number != rewritten}
    assert comparison.still_there.packed == b"".join(sorted(digest(info(one).location, "e") for one in there))
    assert comparison.objects == len(listing)


def test_many_are_compared_at_once() -> None:
    taken = Taken().union(digest(info(number).location, "e") for number in range(100_000))
    comparison = Comparison(taken)
    assert list(comparison.fresh(info(number) for number in range(50_000, 100_001))) == [info(100_000)]
    assert len(comparison.still_there) == 50_000


def test_place_and_version_both_count() -> None:
    places = [Location("a", "b"), Location("a", "b\n"), Location("", "b", "file"), Location("ab", "")]
    assert len({digest(place, etag) for place in places for etag in ("", "1", "2")}) == 12
