"""The pages of a bucket's listing: asked for ahead where it is a long one, and only there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError

from batch_pipeline.errors import StorageFailed
from batch_pipeline.locations import Location
from batch_pipeline.storage.buckets import Buckets

FOLDER = Location("bucket", "in/")
TIME = datetime(2026, 1, 1, tzinfo=UTC)


class Pages:
    """A connection whose store lists so many pages of two objects, and breaks off after one of them."""

    def __init__(self, count: int, broken_after: int | None = None) -> None:
        self.count, self.broken_after = count, broken_after
        self.asked = 0
        self.fourth_asked = threading.Event()
        self.client: Any = self

    def get_paginator(self, operation: str) -> Pages:
        assert operation == "list_objects_v2"
        return self

    def paginate(self, **request: str) -> Iterator[dict[str, Any]]:
        assert request == {"Bucket": "bucket", "Prefix": "in/"}
        for page in range(self.count):
            self.asked += 1
            if self.asked == 4:
                self.fourth_asked.set()
            if page == self.broken_after:
                raise ConnectionClosedError(endpoint_url="http://store")
            keys = [f"in/{page}{name}" for name in "ab"]
            yield {"Contents": [{"Key": key, "Size": 1, "ETag": '"e"', "LastModified": TIME} for key in keys]}


def listing(pages: Pages) -> Iterator[str]:
    return (info.location.key for info in Buckets(pages).list(FOLDER, None, None))  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 9])
def test_all_pages_come_in_order(count: int) -> None:
    pages = Pages(count)
    assert list(listing(pages)) == [f"in/{page}{name}" for page in range(count) for name in "ab"]
    assert pages.asked == count


def test_the_page_after_is_asked_for_while_one_is_read() -> None:
    pages = Pages(6)
    found = listing(pages)
    assert list(islice(found, 5)) == ["in/0a", "in/0b", "in/1a", "in/1b", "in/2a"]
    assert pages.fourth_asked.wait(10)
    assert len(list(found)) == 7


@pytest.mark.parametrize("wanted", [1, 2, 3, 4])
def test_who_wants_few_keys_asks_for_no_more_pages(wanted: int) -> None:
    pages = Pages(6)
    found = listing(pages)
    assert len(list(islice(found, wanted))) == wanted
    del found
    assert pages.asked == (wanted + 1) // 2


@pytest.mark.parametrize("broken_after", [0, 1, 2, 3, 5])
def test_a_page_that_does_not_come_is_our_error_after_all_before_it(broken_after: int) -> None:
    found: list[str] = []
    with pytest.raises(StorageFailed, match="bucket: the object store can't be reached"):
        found.extend(listing(Pages(6, broken_after)))
    assert len(found) == 2 * broken_after
