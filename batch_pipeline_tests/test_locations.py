from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipeline.errors import InvalidLocation
from batch_pipeline.locations import Location, ShareLink, parse_folder, parse_location, parse_source, shown, source_name

SIGNED = "https://other.obs.cn-north-4.myhuaweicloud.com/a%20b/%E7%8C%AB.jpg?AccessKeyId=AK&Expires=1700000000&Signature=S%2Bx"
PRESIGNED = (
    "https://b.s3.amazonaws.com/k.csv?versionId=7&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK%2F2024"
    "&X-Amz-Date=20240102T030405Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Security-Token=T&X-Amz-Signature=abc"
)


@pytest.mark.parametrize(
    ("text", "bucket", "key"),
    [
        ("s3://bucket/a/b.csv", "bucket", "a/b.csv"),
        ("obs://bucket/a/b.csv", "bucket", "a/b.csv"),
        ("S3://bucket/a", "bucket", "a"),
        ("/bucket/a", "bucket", "a"),
        ("//bucket/a", "bucket", "a"),
        ("/bucket//a", "bucket", "/a"),
        ("s3://bucket//a", "bucket", "/a"),
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/a b+%2F?#中.csv", "bucket", "a b+%2F?#中.csv"),
        ("https://bucket.obs.cn-north-4.myhuaweicloud.com/a%20b/%E4%B8%AD+", "bucket", "a b/中+"),
        ("https://my.bucket.obs.myhwclouds.com/k", "my.bucket", "k"),
        ("https://bucket.s3.eu-west-1.amazonaws.com/k/", "bucket", "k/"),
        ("https://bucket.s3.amazonaws.com/", "bucket", ""),
    ],
)
def test_every_way_to_name_an_object(text: str, bucket: str, key: str) -> None:
    assert parse_location(text) == Location(bucket, key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bucket/key",
        "s3://",
        "s3:///key",
        "///key",
        "ftp://h/k",
        "s3://b?d/k",
        "https://example.com/k",
        "file:///a",
        "https://b.obs.x.myhuaweicloud.com/k?versionId=1",
        "http://b.obs.x.myhuaweicloud.com/k",
        "https://[/k",
        "https://b.obs.x.myhuaweicloud.com/%ff",
        "s3://bucket/" + "x" * 1025,
        "s3://bucket/\ud800",
        "https://s3.amazonaws.com/bucket/k",
        "https://b.obs.x.myhuaweicloud.com.evil.org/k",
    ],
)
def test_what_is_no_location(text: str) -> None:
    with pytest.raises(InvalidLocation) as error:
        parse_location(text, what="input_path")
    assert str(error.value).startswith("input_path ")
    assert "\n" not in str(error.value)


def test_a_folder_gets_its_slash() -> None:
    assert parse_folder("s3://bucket/dir") == parse_folder("/bucket/dir/") == Location("bucket", "dir/")
    assert parse_folder("s3://bucket") == Location("bucket", "")
    assert Location("bucket", "dir/").child("x").uri == "s3://bucket/dir/x"


def test_local_files_only_where_allowed() -> None:
    assert parse_location("file:///tmp/a b%20", allow_local=True) == Location("", "tmp/a b%20", "file")
    assert parse_folder("file:///tmp", allow_local=True).uri == "file:///tmp/"
    for text in ("file://tmp/a", "file:///a/../b", "file:///a//b", "file:///a\0b", "file://localhost/a"):
        with pytest.raises(InvalidLocation):
            parse_location(text, allow_local=True)
    with pytest.raises(InvalidLocation, match="does not allow"):
        parse_location("file:///tmp/a")


def test_share_links_are_kept_byte_for_byte_and_secret() -> None:
    link = parse_source(SIGNED)
    assert isinstance(link, ShareLink)
    assert link.url == SIGNED
    assert "S%2Bx" not in f"{link} {link!r} {[link]}"
    assert link.host == "other.obs.cn-north-4.myhuaweicloud.com"
    assert source_name(link) == "猫.jpg"
    assert link.identity == "https://other.obs.cn-north-4.myhuaweicloud.com/a%20b/%E7%8C%AB.jpg"
    assert link.expires == datetime.fromtimestamp(1700000000, UTC)


def test_presigned_links_of_version_4() -> None:
    link = parse_source(PRESIGNED)
    assert isinstance(link, ShareLink)
    assert link.identity == "https://b.s3.amazonaws.com/k.csv?versionId=7"
    assert link.expires == datetime(2024, 1, 2, 3, 5, 5, tzinfo=UTC)


def test_a_share_link_is_no_folder_to_read_from_and_messages_hide_the_signature() -> None:
    for parse, text in ((parse_location, SIGNED), (parse_source, SIGNED.replace("%E7%8C%AB.jpg", ""))):
        with pytest.raises(InvalidLocation) as error:
            parse(text)
        assert "Signature" not in str(error.value)
        assert "AccessKeyId" not in str(error.value)
    with pytest.raises(InvalidLocation) as error:
        parse_source("https://me:secret@h/k?Signature=S")
    assert "secret" not in str(error.value)
    spellings = (" https://h/k?Signature=S", "htps://h/k?Signature=S", "https:/h/k?Signature=S", "h/k?Signature=S")
    for misspelt in (*spellings, "https://h/k&Signature=S", "s3:/h/kSignature=S"):
        with pytest.raises(InvalidLocation) as error:
            parse_source(misspelt)
        assert "Signature" not in str(error.value)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("query", ["?Signature=SECRET", "?a=b&X-Amz-Signature=SECRET", "?x-obs-security-token=SECRET"])
def test_messages_hide_the_signature_of_a_link_that_was_encoded(query: str, times: int) -> None:
    """As where it was taken out of another address."""
    encoded = query
    for _ in range(times):
        encoded = quote(encoded, safe="")
    for text in (f"https://h/a.csv{encoded}", quote(f"https://h/a.csv{query}", safe=""), f"s3://b/a.csv{encoded}"):
        with pytest.raises(InvalidLocation) as error:
            parse_source(text)
        assert "SECRET" not in str(error.value)
        assert "a.csv" in str(error.value)


def test_a_source_names_one_file() -> None:
    for text in ("s3://bucket/dir/", "s3://bucket", "/bucket/"):
        with pytest.raises(InvalidLocation, match="folder"):
            parse_source(text)


@pytest.mark.parametrize(
    "text", ["s3://b?d/{}", "s3://{}/k", "/{}/k", "https://{}.obs.x.myhuaweicloud.com/k", "https://h/{}", "{}"]
)
def test_a_message_repeats_no_more_than_shows_what_is_meant(text: str) -> None:
    for filling in ("x" * 1_000_000, "x" * 1_000_000 + "?Signature=SECRET", "x?Signature=SECRET" + "x" * 1_000_000):
        with pytest.raises(InvalidLocation) as error:
            parse_location(text.format(filling))
        assert len(str(error.value)) < 400
        assert "SECRET" not in str(error.value)
        assert len(shown(text.format(filling))) < 5000


def test_a_location_is_shown_whole() -> None:
    for text in ("s3://bucket/" + "x" * 1024, "file:///" + "/".join(["x" * 254] * 16)):
        assert shown(text) == text == parse_location(text, allow_local=True).uri


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_location, parse_folder, parse_source):
        for head in ("", "s3://", "https://", "/", "https://b.obs.x.myhuaweicloud.com/", "https://h/k?Signature="):
            with suppress(InvalidLocation):
                parse(head + text)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=100))
def test_a_location_is_read_back_from_its_uri(key: str) -> None:
    assert parse_location(Location("bucket", key).uri) == Location("bucket", key)


def test_a_key_forges_no_line_of_a_log() -> None:
    location = Location("bucket", "a\nERROR forged\x1b[2J\u202e猫")
    assert str(location) == r"s3://bucket/a\nERROR forged\x1b[2J\u202e猫"
    assert location.uri == "s3://bucket/a\nERROR forged\x1b[2J\u202e猫"
