"""What arrived, as other rooms see it."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from batch_pipeline.locations import Location
from batch_pipeline.triggers.looking import Arrival, counted, sentence
from batch_pipeline.triggers.template import ServiceTemplate, service_name

TIME = datetime(2026, 11, 22, 3, 0, 0, 500_000, tzinfo=UTC)


def arrival(key: str, etag: str = "etag") -> Arrival:
    return Arrival(Location("bucket", key), etag, 10, TIME)


def test_what_a_template_is_expanded_for() -> None:
    one = arrival("in/flowers 1.manifest")
    assert one.occasion.name == service_name("flowers 1", "in/flowers 1.manifest", "etag")
    made = ServiceTemplate({"output_path": "{stem}/{etag8}/{time}"}).expand(one.occasion)
    assert made == {"output_path": f"flowers 1/{one.occasion.name[-8:]}/20261122T030000Z"}


VERSIONS = st.tuples(st.text(), st.text("0123456789abcdef-", max_size=3))


@given(VERSIONS, VERSIONS)
def test_a_run_key_is_of_one_version(one: tuple[str, str], other: tuple[str, str]) -> None:
    keys = [arrival(key, etag).run_key for key, etag in (one, other)]
    assert all(key.isprintable() for key in keys)
    assert (keys[0] == keys[1]) == (one == other)


def test_run_keys_of_names_that_look_alike() -> None:
    assert arrival("a.manifest").run_key == "s3://bucket/a.manifest etag"
    assert len({arrival(key).run_key for key in ("a\n", "a\\n", '"a\\n', "a%0A", "a ", "a")}) == 6


def test_messages() -> None:
    assert counted(1, "file") == "1 file"
    assert counted(1204, "file") == "1,204 files"
    assert sentence(0, "a", "", None, False, "b") == "a; b"
