"""Which places may stand together: nothing that a declared service writes may come back as its input."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch_pipeline.errors import InvalidLocation, InvalidParameters
from batch_pipeline.locations import Location, parse_folder
from batch_pipeline.triggers.overlaps import check_apart, may_overlap


@pytest.mark.parametrize(
    ("output", "watched"),
    [
        ("s3://bkt/in/{name}/", "s3://bkt/in/"),
        ("s3://bkt/in/", "s3://bkt/in/"),
        ("s3://bkt/in/out/", "s3://bkt/in/"),
        ("s3://bkt/{stem}/", "s3://bkt/in/"),
        ("s3://bkt/{stem}/{etag8}/", "s3://bkt/in/"),
        ("s3://bkt/x-{stem}/", "s3://bkt/x-in/y/"),
        ("s3://bkt/{name}/", "s3://bkt/"),
        ("s3://bkt/{name}/", "s3://bkt/flowers-0123abcd/in/"),
        ("s3://bkt/{time}/", "s3://bkt/20260101T000000Z/"),
        ("obs://bkt/out/{name}", "s3://bkt/out/"),
        ("https://bkt.obs.region.myhuaweicloud.com/{name}/", "s3://bkt/"),
        ("s3://bkt/{{x}}/", "s3://bkt/{x}/"),
    ],
)
def test_places_that_overlap(output: str, watched: str) -> None:
    assert may_overlap(output, parse_folder(watched))


@pytest.mark.parametrize(
    ("output", "watched"),
    [
        ("s3://bkt/out/{name}/", "s3://bkt/in/"),
        ("s3://bkt/{name}/", "s3://bkt/in/"),
        ("s3://bkt/{name}/", "s3://bkt/_triggers/"),
        ("s3://bkt/in{name}/", "s3://bkt/in/"),
        ("s3://bkt/{stem}/{etag8}/", "s3://bkt/in/put/"),
        ("s3://bkt/{time}/", "s3://bkt/in/"),
        ("s3://bkt/in/{name}/", "s3://other/in/"),
        ("s3://bkt/{{name}}/", "s3://bkt/flowers-0123abcd/"),
        ("s3://bkt/a.b/", "s3://bkt/axb/"),
    ],
)
def test_places_that_are_apart(output: str, watched: str) -> None:
    assert not may_overlap(output, parse_folder(watched))


def test_links_do_not_hide_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    folder = Location("", f"{tmp_path}/link/"[1:], "file")
    assert may_overlap(f"file://{tmp_path}/real/{{name}}/", folder, allow_local=True)
    assert not may_overlap(f"file://{tmp_path}/other/{{name}}/", folder, allow_local=True)


def test_every_overlap_is_named() -> None:
    watched, made = Location("bkt", "in/"), Location("bkt", "in/x-0123abcd/")
    check_apart(watched, "s3://bkt/out/{name}/", state=Location("bkt", "out/_t/"), manifests=Location("bkt", "out/_m/"))
    output, state = "s3://bkt/in/{name}/", Location("bkt", "")
    with pytest.raises(InvalidParameters) as refused:
        check_apart(watched, output, state=state, manifests=made)
    assert [str(problem) for problem in refused.value.problems] == [
        f"output_path: {output} and the watched folder {watched} must be apart: results would become inputs",
        f"the state folder {state} and the watched folder {watched} must be apart",
        f"output_path: {output} and the state folder {state} must be apart: an output folder must be empty",
        f"the manifests folder {made} and the watched folder {watched} must be apart",
        f"output_path: {output} and the manifests folder {made} must be apart: an output folder must be empty",
    ]
    with pytest.raises(InvalidParameters, match="must be two, not both"):
        check_apart(watched, "s3://bkt/out/{name}/", state=Location("bkt", "s/"), manifests=Location("bkt", "s/"))


def test_a_bucket_is_no_placeholder() -> None:
    with pytest.raises(InvalidLocation, match="no valid bucket name"):
        may_overlap("s3://{stem}/x/", Location("bkt", "in/"))
