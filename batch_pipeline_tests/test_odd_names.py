"""Keys and file names are data: whatever they hold, a result lands in its output folder or is an error of its input."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batch_pipeline import service
from batch_pipeline.locations import Location
from batch_pipeline.ownership import Owner
from batch_pipeline.storage import Storage
from batch_pipeline.triggers.manifests import ManifestWatch
from batch_pipeline.triggers.new_files import NewFilesWatch
from batch_pipeline_tests.places import ROW, Place
from batch_pipeline_tests.test_share_links import Site, answer

KEYS = [
    "../up.csv",
    "../../../../../../tmp/up.csv",
    "a//b.csv",
    "./c.csv",
    "a/../d.csv",
    "~/e.csv",
    "$(touch f).csv",
    "line\nend.csv",
    "tab\tend.csv",
    "per%2e%2e%2fcent.csv",
    "per%cent.csv",
    "back\\..\\slash.csv",
    '"quoted".csv',
    "a?b=c#d.csv",
    "ﬁ\u0301\u202e.csv",
    "%00.csv",
    " .csv",
    "+ +.csv",
    "x" * 250 + ".csv",
]


@pytest.fixture
def place(tmp_path: Path, rgw_bucket: str) -> Place:
    return Place.at(tmp_path)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def everything(root: Path, output: Path) -> set[str]:
    """All that is there beside an output folder."""
    return {str(path) for path in root.rglob("*") if not path.is_relative_to(output)}


def test_keys_of_a_bucket_as_names_of_files(place: Place, rgw_bucket: str) -> None:
    for key in KEYS:
        Storage().write(Location(rgw_bucket, f"in/{key}"), f"{ROW}\n".encode())
    output = place.root / "deep/er/out"
    before = everything(place.root, output) | {str(place.root / "deep"), str(place.root / "deep/er")}
    summary = place.run(
        input_path=f"s3://{rgw_bucket}/in/", output_path=f"file://{output}/", error_threshold=1, join_input=True
    )
    assert summary.succeeded + summary.failed == summary.inputs == len(KEYS)
    left = everything(place.root, output) - before
    assert not [path for path in left if not path.startswith(f"{place.root}/cache")]
    assert not Path("/tmp/up.csv_result.txt").exists()
    failed = [json.loads(line) for line in (output / "infer-error-0.manifest").read_text().splitlines()]
    assert {(line["source"].partition("/in/")[2], line["error"]["code"]) for line in failed} == {
        *((key, "bad_name") for key in KEYS[:5]),
        (KEYS[-1], "name_too_long"),
    }
    done = [json.loads(line) for line in (output / "infer-result-0.manifest").read_text().splitlines()]
    for line in done:
        result = Path(line["inference-loc"].removeprefix("file://"))
        assert result.resolve().is_relative_to(output / "infer-result")
        assert json.loads(result.read_text())


def test_keys_of_a_bucket_as_keys_of_results(place: Place, rgw_bucket: str) -> None:
    storage = Storage()
    for key in KEYS:
        storage.write(Location(rgw_bucket, f"in/{key}"), f"{ROW}\n".encode())
    summary = place.run(input_path=f"s3://{rgw_bucket}/in/", output_path=f"s3://{rgw_bucket}/out/")
    assert (summary.succeeded, summary.failed) == (len(KEYS), 0)
    keys = {one.location.key for one in storage.list(Location(rgw_bucket, ""))}
    assert {key for key in keys if not key.startswith(("in/", "out/_batch/", "out/infer-"))} == set()
    assert {key for key in keys if key.startswith("out/infer-result/")} == {
        f"out/infer-result/{key}_result.txt" for key in KEYS
    }


def test_a_key_whose_result_stands_in_the_way_of_anothers(place: Place) -> None:
    """A bucket holds an object and a folder of one name; a disk does not."""
    for name in ("a.csv", "a.csv_result.txt/b.csv", "c.csv_result.txt/d/e.csv", "c.csv", "z.csv"):
        place.put(name)
    summary = place.run(error_threshold=1)
    assert (summary.succeeded, summary.failed) == (3, 2)
    failed = place.lines("infer-error-0.manifest")
    assert {line["error"]["code"] for line in failed} == {"bad_name"}
    for line in place.lines("infer-result-0.manifest"):
        assert json.loads(Path(line["inference-loc"].removeprefix("file://")).read_text())


def test_what_is_below_a_file_is_not_there(place: Place) -> None:
    there = place.put("a.csv")
    summary = place.run(input_path=place.manifest(there, f"{there}/x.csv"), error_threshold=1)
    assert [error["code"] for error in summary.first_errors] == ["not_found"]


def test_file_names_of_share_links(place: Place, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stranger calls a file is no path: all but its last part is dropped, once it is decoded."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", site.url)
    place = Place(place.root, Place.at(_fresh(place.root), AWS_ENDPOINT_URL_S3=site.url).deployment)
    names = ["..%2F..%2Fup.csv", "..%2Fup.csv", "a%2Fup.csv", "%00.csv", "up%0A.csv", "..%5Cup.csv", "x" * 300 + ".csv"]
    links = [f"{site.url}/bucket/{name}?Signature=SECRET&Expires=99999999999&AccessKeyId=AK" for name in names]
    site.answers = {f"/bucket/{name}": answer(200, f"{ROW}\n".encode()) for name in names}
    before = everything(place.root, place.output)
    summary = place.run(input_path=place.manifest(*links), error_threshold=1)
    assert (summary.succeeded, summary.failed) == (5, 2)
    failed = place.lines("infer-error-0.manifest")
    assert [line["error"]["code"] for line in failed] == ["bad_name", "name_too_long"]
    assert {path.name for path in (place.output / "infer-result").iterdir()} == {
        "up.csv_result.txt",
        *(f"up.csv-{hashlib.sha256(one.encode()).hexdigest()[:8]}_result.txt" for one in links[1:3]),
        "up\n.csv_result.txt",
        "..\\up.csv_result.txt",
    }
    assert {path for path in everything(place.root, place.output) - before if "/cache" not in path} == {
        str(place.root / "list.manifest")
    }


def _fresh(root: Path) -> Path:
    folder = root / "fresh"
    folder.mkdir()
    return folder


def test_a_name_that_is_no_text_costs_its_own_input_alone(place: Place) -> None:
    """On a disk a name is bytes. All others go on, in the order of their keys."""
    for name in ("a.csv", "b/c.csv", "b/e.csv", "z.csv"):
        place.put(name)
    for odd in (b"b/d\xff.csv", b"caf\xe9.csv", b"c\xfe/x.csv"):
        path = place.root / "in" / os.fsdecode(odd)
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{ROW}\n")
    # A name in text that looks like what an odd one is shown as is another file.
    place.put("caf\\xe9.csv")
    summary = place.run(error_threshold=1)
    assert (summary.inputs, summary.succeeded, summary.failed) == (8, 5, 3)
    done = [line["source"].partition("/in/")[2] for line in place.lines("infer-result-0.manifest")]
    assert done == ["a.csv", "b/c.csv", "b/e.csv", "caf\\xe9.csv", "z.csv"]
    failed = place.lines("infer-error-0.manifest")
    assert [line["source"].partition("/in/")[2] for line in failed] == ["b/d\\xff.csv", "caf\\xe9.csv", "c\\xfe/"]
    assert {line["error"]["code"] for line in failed} == {"bad_name"}
    assert "not UTF-8" in failed[0]["error"]["message"]
    # A second run finds the same list.
    (place.output / "_batch/summary.json").unlink()
    assert place.run("second", error_threshold=1).succeeded == 5


def test_a_name_that_is_no_text_in_a_watched_folder_holds_nothing_up(place: Place) -> None:
    place.put("a.csv")
    place.put("x.manifest")
    (place.root / "in" / os.fsdecode(b"\xff.manifest")).write_text("")
    storage, root = Storage(allow_local=True), Location("", f"{place.root}/"[1:], "file")
    folder = root.child("in/")
    files = NewFilesWatch(storage, folder, root.child("s1/"), root.child("m/"), "files", 0, 10)
    assert len(files.look(None, lambda _: ()).arrivals) == 1
    (one,) = ManifestWatch(storage, folder, root.child("s2/")).look(None, lambda _: ()).arrivals
    assert one.location.name == "x.manifest"


def test_a_divided_csv_whose_result_would_stand_in_the_way_of_anothers(place: Place) -> None:
    """It is put together last, when the other is there."""
    place.put("big.csv", 300 * f"{ROW}\n")
    place.put("big.csv_result.txt/b.csv")
    place.put("z.csv")
    big = f"file://{place.root}/in/big.csv"
    folder = place.run(node_count=2, error_threshold=1)
    assert (folder.succeeded, folder.failed) == (2, 1)
    (failed,) = [line for path in place.output.glob("infer-error-*") for line in place.lines(path.name)]
    assert (failed["source"], failed["error"]["code"]) == (big, "bad_name")
    assert "a folder of another result stands in its place" in failed["error"]["message"]
    # It is tried again, as all that failed is, and there is no way out yet.
    again = place.run("second", node_count=2, error_threshold=0.9)
    assert (again.state, again.succeeded, again.failed) == ("finished", 2, 1)


def test_a_divided_csv_whose_result_has_its_place_back_is_put_together(place: Place) -> None:
    """A folder of somebody else stood there, and is removed. A source that is listed twice fails and succeeds twice."""
    big = place.put("big.csv", 300 * f"{ROW}\n")
    listing = place.manifest(big, place.put("z.csv"), big)
    summary = run_divided(place, listing, "first", (place.output / "infer-result/big.csv_result.txt").mkdir)
    assert (summary.state, summary.succeeded, summary.failed) == ("failed", 1, 2)
    summary = run_divided(place, listing, "second", (place.output / "infer-result/big.csv_result.txt").rmdir)
    assert (summary.state, summary.succeeded, summary.rows) == ("finished", 3, 601)


def run_divided(place: Place, listing: str, run: str, before_the_end: Callable[[], None]) -> service.Summary:
    parameters, owner = place.parameters(input_path=listing, node_count=2), Owner(run, "flowers")
    service.ingest(parameters, place.deployment, owner)
    for shard in service.plan(parameters, place.deployment, owner):
        service.infer(shard, place.deployment, owner)
    before_the_end()
    return service.publish(parameters, place.deployment, owner)
