"""A service from its parameters to its manifests, and again: on real files, with a real model."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import pytest

from batch_pipeline import service
from batch_pipeline.errors import (
    AccountingFailed,
    InputMissing,
    InvalidParameters,
    ModelRefused,
    OutputRefused,
    Refused,
    ServiceChanged,
    ServiceLocked,
    ServiceMadeOver,
)
from batch_pipeline.layout import OutputLayout
from batch_pipeline.node_specs import NodeSpec
from batch_pipeline.ownership import Owner, ProcessIdentity, claim
from batch_pipeline_tests.places import EXPORTED, ROW, Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.at(tmp_path)


def rows(count: int, seed: int = 0) -> str:
    values = np.random.default_rng(seed).uniform(0, 8, (count, 4))
    return "".join(",".join(f"{value:.2f}" for value in row) + "\n" for row in values)


def direct(text: str) -> list[list[float]]:
    """What ONNX Runtime itself answers."""
    session = onnxruntime.InferenceSession(str(EXPORTED / "logistic.onnx"))
    block = np.array([[float(field) for field in line.split(",")] for line in text.splitlines()], np.float32)
    return session.run(["probabilities"], {session.get_inputs()[0].name: block})[0].tolist()


# --- results and manifests -----------------------------------------------------------------------------------


def test_every_row_of_a_divided_csv_is_answered_in_row_order(place):
    text = rows(2000)
    place.put("big.csv", text)
    place.put("a/small.csv")
    summary = place.run(node_count=3)
    assert (summary.state, summary.inputs, summary.succeeded, summary.rows) == ("finished", 2, 2, 2001)
    answers = place.lines("infer-result/big.csv_result.txt")
    # ONNX Runtime's last bit depends on how many rows share a call.
    np.testing.assert_allclose([answer["probabilities"] for answer in answers], direct(text), rtol=1e-5)
    nodes = [place.lines(f"infer-result-{node}.manifest") for node in range(3)]
    assert [entry["source"] for node in nodes for entry in node] == [
        f"file://{place.root}/in/a/small.csv",
        f"file://{place.root}/in/big.csv",
    ]
    assert nodes[0][0].keys() == {"source", "inference-loc"}
    assert nodes[0][0]["inference-loc"] == f"file://{place.root}/out/infer-result/a/small.csv_result.txt"
    assert len(list((place.output / "_batch").glob("plan/shard-*"))) == 3
    assert not list((place.output / "_batch").glob("parts/*"))


def test_a_csv_with_row_errors_has_a_result_and_stands_in_both_manifests(place):
    place.put("mixed.csv", f"{ROW}\n1,2\n{ROW}\n\n1,x,3,4\n")
    summary = place.run(error_threshold=1)
    assert (summary.succeeded, summary.failed, summary.rows, summary.failed_rows) == (1, 0, 5, 3)
    lines = place.lines("infer-result/mixed.csv_result.txt")
    assert [line.get("error", {}).get("code") for line in lines] == [
        None,
        "too_few_fields",
        None,
        "too_few_fields",
        "not_a_number",
    ]
    (error,) = place.lines("infer-error-0.manifest")
    assert (error["source"], error["failed_rows"]) == (f"file://{place.root}/in/mixed.csv", 3)
    assert error["error"].keys() == {"code", "message"}
    assert len(place.lines("infer-result-0.manifest")) == 1


def test_row_errors_of_a_divided_csv_are_counted_over_all_its_parts(place):
    place.put("big.csv", (rows(300) + "bad\n") * 4)
    summary = place.run(node_count=4, error_threshold=0.5)
    assert (summary.rows, summary.failed_rows) == (1204, 4)
    errors = [line for path in place.output.glob("infer-error-*") for line in path.read_text().splitlines()]
    assert [json.loads(line)["failed_rows"] for line in errors] == [4]


def test_an_input_that_is_no_csv_is_recorded_not_dropped(place):
    place.put("a.csv")
    place.put("notes.txt", "hello")
    summary = place.run(error_threshold=0.5)
    assert (summary.succeeded, summary.failed) == (1, 1)
    (error,) = place.lines("infer-error-0.manifest")
    assert error["error"]["code"] == "not_csv"


def test_bad_manifest_lines_are_errors_of_those_lines(place):
    good = place.put("a.csv")
    listing = place.root / "list.manifest"
    listing.write_bytes(
        b"\xef\xbb\xbf"
        + json.dumps({"source": good}).encode()
        + b'\n\n{"no": 1}\r\nnonsense\n{"source": "s3://bucket/dir/"}\n'
    )
    summary = place.run(input_path=f"file://{listing}", error_threshold=1)
    assert (summary.inputs, summary.succeeded, summary.failed) == (4, 1, 3)
    errors = place.lines("infer-error-0.manifest")
    assert [(error["source"], error["line"]) for error in errors] == [(None, 3), (None, 4), ("s3://bucket/dir/", 5)]


def test_a_repeated_source_is_computed_once_and_listed_twice(place):
    first, second = place.put("a.csv"), place.put("b.csv", rows(3))
    summary = place.run(input_path=place.manifest(first, second, first), node_count=2)
    assert (summary.inputs, summary.succeeded, summary.rows) == (3, 3, 5)
    listed = [entry for node in (0, 1) for entry in place.lines(f"infer-result-{node}.manifest")]
    assert [entry["source"] for entry in listed].count(first) == 2
    assert len({entry["inference-loc"] for entry in listed if entry["source"] == first}) == 1
    records = b"".join(path.read_bytes() for path in (place.output / "_batch/ledger").iterdir())
    assert records.count(b'"etag"') == 2


@pytest.mark.parametrize("first", [0, 1, 4])
def test_a_source_in_another_spelling_is_the_same(place, first):
    spellings = ["s3://bucket/a/é.csv", "obs://bucket/a/é.csv", "/bucket/a/é.csv", "//bucket/a/é.csv"]
    spellings += ["https://bucket.obs.cn-north-4.myhuaweicloud.com/a/%C3%A9.csv", "S3://bucket/a/é.csv"]
    sources = [*spellings[first:], *spellings[:first], "s3://bucket/b/é.csv"]
    listing = place.root / "list.manifest"
    listing.write_text("".join(json.dumps({"source": source}, ensure_ascii=False) + "\n" for source in sources))
    report = service.ingest(place.parameters(input_path=f"file://{listing}"), place.deployment, Owner("run", "flowers"))
    assert (report.inputs, report.repeated) == (7, 5)


def test_sources_with_one_file_name_do_not_overwrite_each_other(place):
    sources = [place.put(f"{folder}/x.csv", rows(count)) for count, folder in enumerate("abc", start=1)]
    place.run(input_path=place.manifest(*sources))
    suffixes = ["", *("-" + hashlib.sha256(source.encode()).hexdigest()[:8] for source in sources[1:])]
    for count, suffix in enumerate(suffixes, start=1):
        assert len(place.lines(f"infer-result/x.csv{suffix}_result.txt")) == count


def test_a_share_link_written_with_other_escapes_is_the_same_source(place):
    link = "https://127.0.0.1/others/a.csv?Signature=abc&Expires=1"
    listing = place.root / "list.manifest"
    listing.write_text(json.dumps({"source": link}) + "\n" + json.dumps({"source": link}).replace("/", "\\/") + "\n")
    parameters = place.parameters(input_path=f"file://{listing}")
    report = service.ingest(parameters, place.deployment, Owner("run", "flowers"))
    assert (report.inputs, report.repeated) == (2, 1)


def test_there_is_one_result_manifest_a_node_even_where_it_had_nothing(place):
    place.put("a.csv")
    place.run(node_count=4)
    assert [name for name in place.files() if name.startswith("infer-result-")] == [
        f"infer-result-{node}.manifest" for node in range(4)
    ]


def test_progress_counts_inputs_not_the_parts_of_a_divided_csv(place):
    big = place.put("big.csv", rows(300))
    parameters = place.parameters(input_path=place.manifest(big, big, {"no": 1}), node_count=3, error_threshold=1)
    owner = Owner("run", "flowers")
    service.ingest(parameters, place.deployment, owner)
    shards = service.plan(parameters, place.deployment, owner)
    assert sum(shard.units for shard in shards) == 3
    for shard in shards:
        service.infer(shard, place.deployment, owner)
    progress = service.progress(parameters, place.deployment)
    assert (progress.done, progress.failed, progress.units, progress.rows) == (3, 1, 3, 300)
    another = place.parameters(name="trees")
    assert service.progress(another, place.deployment).units == 0


def test_a_manifest_that_is_not_there_is_refused_and_one_rewritten_meanwhile_fails(place):
    with pytest.raises(InputMissing, match=r"none\.manifest: there is no such manifest"):
        place.run(input_path=f"file://{place.root}/none.manifest")
    assert not place.output.exists()
    parameters = place.parameters(input_path=place.manifest(place.put("a.csv"), place.put("b.csv")))
    owner = Owner("run", "flowers")
    service.ingest(parameters, place.deployment, owner)
    place.manifest(place.put("b.csv"), place.put("a.csv"))
    (shard,) = service.plan(parameters, place.deployment, owner)
    with pytest.raises(InputMissing, match="rewritten"):
        service.infer(shard, place.deployment, owner)
    assert not (place.output / "infer-result").exists()


def test_an_empty_csv_has_an_empty_result(place):
    place.put("empty.csv", "")
    assert place.run().state == "finished"
    assert place.files()["infer-result/empty.csv_result.txt"] == b""


def test_the_records_hold_no_source(place):
    secret = place.put("secret-name.csv", rows(500))
    place.run(node_count=2, input_path=place.manifest(secret, place.put("other-name.csv") + "x.csv"))
    records = [path.read_bytes() for path in (place.output / "_batch").rglob("*") if path.is_file()]
    assert records
    assert not any(b"secret-name" in record or b"other-name" in record for record in records)


def test_more_failures_than_the_threshold_fail_the_service_after_everything_is_written(place):
    place.put("a.csv")
    place.put("b.txt", "")
    summary = place.run()
    assert summary.state == "failed"
    assert "1 of 2 inputs" in summary.message
    assert {
        "infer-result-0.manifest",
        "infer-error-0.manifest",
        "infer-result/a.csv_result.txt",
    } <= place.files().keys()


# --- running again -------------------------------------------------------------------------------------------


def attempts(place: Place) -> list[str]:
    return sorted(path.name[:4] for path in (place.output / "_batch/ledger").iterdir() if "composed" not in path.name)


@pytest.mark.parametrize("is_manifest", [False, True])
def test_a_list_of_many_ranges_comes_to_the_same(tmp_path, monkeypatch, is_manifest):
    def manifests() -> dict[str, list[dict[str, object]]]:
        (tmp_path / "at").mkdir()
        place = Place.at(tmp_path / "at")
        sources = [place.put(f"{number:02}/x.csv", rows(3, number)) for number in range(20)]
        sources.insert(7, place.put("big.csv", rows(1500)))
        sources[3:3] = [place.put("00/notes.txt", "no rows"), f"file://{place.root}/in/none.csv"]
        listing = place.manifest(*sources, sources[9], {"no": 1}, sources[0], sources[9], *sources[3:5])
        changes = {"input_path": listing} if is_manifest else {}
        first = place.run(node_count=3, error_threshold=0, **changes)
        assert (first.state, first.rows) == ("failed", 1500 * (3 if is_manifest else 1) + 3 * (20 + is_manifest))
        (place.output / "infer-result/big.csv_result.txt").unlink()
        again = place.run("second", node_count=3, error_threshold=0.5, **changes)
        assert (again.inputs, again.failed, again.rows) == (first.inputs, first.failed, first.rows)
        found = {path.name: place.lines(path.name) for path in sorted(place.output.glob("*.manifest"))}
        shutil.rmtree(place.root)
        return found

    whole = manifests()
    monkeypatch.setattr("batch_pipeline.spill.PART_ROWS", 4)
    monkeypatch.setattr("batch_pipeline.manifest_columns.BLOCK_BYTES", 200)
    monkeypatch.setattr("batch_pipeline.inputs.LISTED_AT_ONCE", 5)
    monkeypatch.setattr("batch_pipeline.proof.LISTED_AT_ONCE", 3)
    monkeypatch.setattr("batch_pipeline.ledger.READ_AT_ONCE", 1)
    assert manifests() == whole
    assert sum(map(len, whole.values())) == (29 if is_manifest else 22)


def test_a_finished_service_ends_at_once(place):
    place.put("a.csv")
    place.run()
    before = {path: path.stat().st_mtime_ns for path in place.output.rglob("*") if path.is_file()}
    summary = place.run("another")
    assert summary.already_finished
    assert {path: path.stat().st_mtime_ns for path in place.output.rglob("*") if path.is_file()} == before


def test_failed_inputs_are_tried_again_and_finished_ones_are_not(place):
    good, late = place.put("good.csv", rows(5)), f"file://{place.root}/in/late.csv"
    listing = place.manifest(good, late)
    assert place.run(input_path=listing).state == "failed"
    written = (place.output / "infer-result/good.csv_result.txt").stat().st_mtime_ns
    place.put("late.csv", rows(2))
    summary = place.run("second", input_path=listing)
    assert (summary.state, summary.succeeded, summary.rows) == ("finished", 2, 7)
    assert (place.output / "infer-result/good.csv_result.txt").stat().st_mtime_ns == written
    assert "infer-error-0.manifest" not in place.files()


def test_a_higher_threshold_can_finish_without_computing(place):
    place.put("a.csv", f"{ROW}\nbad\n")
    assert place.run().state == "failed"
    written = (place.output / "infer-result/a.csv_result.txt").stat().st_mtime_ns
    assert place.run("second", error_threshold=0.5).state == "finished"
    assert (place.output / "infer-result/a.csv_result.txt").stat().st_mtime_ns == written


def test_failed_inputs_are_tried_again_under_a_higher_threshold(place):
    listing = place.manifest(
        place.put("good.csv"), f"file://{place.root}/in/late.csv", f"file://{place.root}/in/no.csv"
    )
    assert place.run(input_path=listing).state == "failed"
    place.put("late.csv", rows(2))
    summary = place.run("second", input_path=listing, error_threshold=0.9)
    assert (summary.state, summary.succeeded, summary.failed) == ("finished", 2, 1)
    assert place.run("third", input_path=listing, error_threshold=0.9).already_finished


def test_a_first_error_without_a_source_is_named_by_its_line(place):
    listing = place.manifest(place.put("good.csv"))
    (place.root / listing.removeprefix(f"file://{place.root}/")).write_text("\nnot JSON\n")
    assert "the first: line 2: the line is not JSON" in place.run(input_path=listing).message


def test_an_interrupted_service_continues_with_what_is_left(place):
    place.put("big.csv", rows(3000))
    place.put("small.csv", rows(3))
    parameters, owner = place.parameters(node_count=3), Owner("first", "flowers")
    service.ingest(parameters, place.deployment, owner)
    shards = service.plan(parameters, place.deployment, owner)
    service.infer(shards[0], place.deployment, owner)
    service.infer(shards[2], place.deployment, owner)
    with pytest.raises(AccountingFailed, match="run the service again") as error:
        service.publish(parameters, place.deployment, owner)
    assert (error.value.inputs, error.value.missing) == (2, 1)
    assert error.value.first == ({"line": 1, "source": f"file://{place.root}/in/big.csv"},)
    service.release(parameters.output, place.deployment, owner.run_id)
    assert not list(place.output.glob("*.manifest"))
    done = {path: path.stat().st_mtime_ns for path in (place.output / "_batch/parts").iterdir()}
    again = Owner("second", "flowers")
    service.ingest(parameters, place.deployment, again)
    reports = [
        service.infer(shard, place.deployment, again) for shard in service.plan(parameters, place.deployment, again)
    ]
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert [report.progress.bytes_read > 0 for report in reports] == [False, True, False]
    assert service.publish(parameters, place.deployment, again).rows == 3003


def test_an_input_that_was_removed_before_its_node_came_to_it_is_not_said_to_be_unfinished(place):
    for name in "ab":
        place.put(f"{name}.csv")
    parameters, owner = place.parameters(), Owner("run", "flowers")
    service.ingest(parameters, place.deployment, owner)
    shards = service.plan(parameters, place.deployment, owner)
    (place.root / "in/b.csv").unlink()
    for shard in shards:
        service.infer(shard, place.deployment, owner)
    with pytest.raises(AccountingFailed, match=r"1 of 2 inputs have no outcome .* no longer in") as error:
        service.publish(parameters, place.deployment, owner)
    assert (error.value.missing, error.value.first) == (1, ({"line": 2, "source": None},))


def test_what_is_lost_before_the_end_is_named(place):
    for name in "abcd":
        place.put(f"{name}.csv")
    parameters, owner = place.parameters(node_count=2), Owner("run", "flowers")
    service.ingest(parameters, place.deployment, owner)
    for shard in service.plan(parameters, place.deployment, owner):
        service.infer(shard, place.deployment, owner)
    (place.root / "in/b.csv").unlink()
    place.put("0.csv")
    with pytest.raises(AccountingFailed, match="1 of 4 inputs are no longer in") as error:
        service.publish(parameters, place.deployment, owner)
    assert (error.value.missing, error.value.first) == (1, ({"line": 2, "source": None},))
    for name in "bd":
        (place.output / f"infer-result/{name}.csv_result.txt").unlink()
    with pytest.raises(AccountingFailed, match="the result of input line 2 and those of 1 others is not in") as error:
        service.publish(parameters, place.deployment, owner)
    last = {"line": 4, "source": f"file://{place.root}/in/d.csv"}
    assert (error.value.missing, error.value.first) == (2, ({"line": 2, "source": None}, last))
    assert not list(place.output.glob("*.manifest"))


def test_a_node_in_a_process_of_its_own_reads_on_no_more_threads_than_it_computes_on(place):
    place.put("a.csv")
    parameters, owner = place.parameters(), Owner("run", "flowers")
    service.ingest(parameters, place.deployment, owner)
    (shard,) = service.plan(parameters, place.deployment, owner)
    (place.root / "node").write_bytes(pickle.dumps((shard, place.deployment.settings, owner)))
    script = """
        import pickle, sys
        from batch_pipeline import service
        from batch_pipeline.deployment import Deployment
        shard, settings, owner = pickle.load(open(sys.argv[1], "rb"))
        service.infer(shard, Deployment(settings), owner, at_once=10**6)
        import polars
        print(polars.thread_pool_size())
    """
    variables = {name: value for name, value in os.environ.items() if name != "POLARS_MAX_THREADS"}
    command = [sys.executable, "-c", textwrap.dedent(script), str(place.root / "node")]
    assert subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout == "1\n"


def test_a_node_computes_on_no_more_threads_than_its_spec_has_cpus():
    one, many = NodeSpec("one", "", 1, 1), NodeSpec("many", "", 512, 1)
    cores = service.threads_of(many)
    assert cores == len(os.sched_getaffinity(0))
    assert service.threads_of(one) == 1
    assert service.threads_of(many, at_once=cores) == 1
    assert service.threads_of(many, at_once=2 * cores) == 1


def test_an_attempt_that_ended_before_its_table_was_written_is_run_again(place):
    place.put("a.csv")
    service.ingest(place.parameters(), place.deployment, Owner("run", "flowers", dead_process()))
    (place.output / "_batch/plan/inputs.parquet").unlink()
    assert place.run("second").state == "finished"


def test_an_attempt_of_an_earlier_version_is_continued(place):
    """Its tables had a column more, and no marks stood beside them."""
    listing = place.manifest(
        *(place.put(f"{number}/x.csv", rows(3)) for number in range(9)), f"file://{place.root}/no.csv"
    )
    assert place.run(input_path=listing, node_count=2).state == "failed"
    for table in (place.output / "_batch/plan").glob("*.parquet"):
        pl.read_parquet(table).with_columns(offset=pl.lit(7, pl.UInt64)).write_parquet(table)
    (place.output / "_batch/plan/marks.parquet").unlink()
    written = {path: path.stat().st_mtime_ns for path in (place.output / "infer-result").iterdir()}
    summary = place.run("second", input_path=listing, node_count=2, error_threshold=0.5)
    assert (summary.state, summary.succeeded, summary.rows) == ("finished", 9, 27)
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_a_result_that_was_removed_is_made_again(place):
    place.put("a.csv", rows(5))
    place.put("b.txt", "")
    place.run()
    (place.output / "infer-result/a.csv_result.txt").unlink()
    place.run("second")
    assert len(place.lines("infer-result/a.csv_result.txt")) == 5


def test_the_removed_result_of_a_divided_csv_is_made_again(place):
    listing = place.manifest(place.put("big.csv", rows(2000)), place.put("b.txt", ""))
    assert place.run(input_path=listing, node_count=3, error_threshold=0).state == "failed"
    written = (place.output / "infer-result/big.csv_result.txt").read_bytes()
    (place.output / "infer-result/big.csv_result.txt").unlink()
    assert place.run("second", input_path=listing, node_count=3, error_threshold=0.5).rows == 2000
    assert (place.output / "infer-result/big.csv_result.txt").read_bytes() == written


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"node_count": 2}, "node_count was 1 and is 2"),
        ({"csv": {"header": True}}, "csv changed: header"),
        ({"join_input": True}, "join_input"),
        ({"environment": {"A": "1"}}, "environment changed: A"),
        (
            {
                "mapping": {
                    "type": "object",
                    "properties": {f"input_{n}": {"type": "number", "index": 4 - n} for n in range(1, 5)},
                }
            },
            "mapping",
        ),
    ],
)
def test_what_changed_is_named_and_nothing_is_touched(place, changes, named):
    place.put("a.csv")
    place.run()
    before = place.files()
    with pytest.raises(ServiceChanged, match=named):
        place.run("second", **changes)
    assert place.files() == before
    assert not (place.output / "_batch/lock.json").exists()


def test_a_changed_input_list_or_model_is_named(place):
    place.put("a.csv")
    place.run()
    place.put("b.csv")
    with pytest.raises(ServiceChanged, match="input list"):
        place.run("second")
    (place.root / "in/b.csv").unlink()
    place.push("iris:1.1.0", model="logistic_zipmap.onnx")
    with pytest.raises(ServiceChanged, match=r"model was iris:1\.0\.0.* and is iris:1\.1\.0"):
        place.run("third")
    assert place.run("fourth", model="iris:1.0.0").already_finished


def test_overwrite_removes_the_services_own_objects_and_no_others(place):
    place.put("a.csv")
    place.put("old.csv")
    place.run(node_count=3)
    foreign = {"mine.txt": b"1", "infer-result/mine.txt": b"2", "infer-result-9.manifest": b"3"}
    for name, data in foreign.items():
        (place.output / name).write_bytes(data)
    (place.root / "in/old.csv").unlink()
    summary = place.run("second", if_changed="overwrite")
    assert summary.inputs == 1
    files = place.files()
    assert foreign.items() <= files.items()
    assert files.keys() - foreign.keys() == {"infer-result-0.manifest", "infer-result/a.csv_result.txt"}


# --- refused before anything is written ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"model": "rose"}, ModelRefused, "there is no model 'rose'.*iris"),
        ({"model": "iris:9"}, ModelRefused, "no version 9.*1.0.0"),
        ({"request_path": "/v2"}, ModelRefused, "/"),
        ({"mapping": {"type": "object", "properties": {"nope": {"type": "number", "index": 0}}}}, ModelRefused, "nope"),
        ({"mapping": {"type": "object", "properties": {"input_1": {"type": "number"}}}}, ModelRefused, "input_1"),
        ({"node_spec": "gpu-2u8g-p4"}, InvalidParameters, "granted.*cpu-2u8g"),
        ({"node_spec": "auto-cpu"}, InvalidParameters, "automatic learning.*cpu-2u8g"),
        ({"environment": {"TOKEN": {"env": "NOT_SET_ANYWHERE"}}}, InvalidParameters, "NOT_SET_ANYWHERE"),
        ({"input_path": "file:///nowhere/at/all/"}, InputMissing, "input_path"),
        ({"input_path": "file:///nowhere/x.manifest"}, InputMissing, "no such manifest"),
    ],
)
def test_refused_with_nothing_written(place, changes, error, says):
    place.put("a.csv")
    with pytest.raises(error, match=says):
        place.run(**changes)
    assert not place.output.exists()


def test_an_empty_folder_or_manifest_is_refused(place):
    with pytest.raises(InputMissing, match="holds no object"):
        place.run()
    empty = place.root / "empty.manifest"
    empty.write_text("\n\n")
    with pytest.raises(InputMissing, match="lists no input"):
        place.run(input_path=f"file://{empty}")
    assert not place.output.exists()


def test_a_folder_that_holds_something_else_is_refused_naming_it(place):
    place.put("a.csv")
    place.output.mkdir()
    (place.output / "theirs.txt").write_text("x")
    with pytest.raises(OutputRefused, match=r"theirs\.txt"):
        place.run()
    assert list(place.files()) == ["theirs.txt"]


def test_another_services_folder_is_refused(place):
    place.put("a.csv")
    place.run()
    with pytest.raises(OutputRefused, match="the service flowers"):
        place.run("second", name="trees")


def test_a_mapping_for_a_file_model_is_refused(place):
    place.push("bytes:1", {"model_algorithm": "size", "model_type": "ONNX", "apis": [_FILE_API]}, "file_bytes.onnx")
    place.put("a.bin", b"abc")
    with pytest.raises(ModelRefused, match="takes files"):
        place.run(model="bytes", mapping={"type": "object"})
    assert place.run(model="bytes").state == "finished"


_FILE_API = {
    "url": "/",
    "request": {
        "Content-type": "multipart/form-data",
        "data": {"type": "object", "properties": {"f": {"type": "file"}}},
    },
}


# --- who owns the folder -------------------------------------------------------------------------------------


def dead_process() -> ProcessIdentity:
    current = ProcessIdentity.current()
    return dataclasses.replace(current, started="0")


def test_a_live_holder_is_not_disturbed(place):
    place.put("a.csv")
    layout = OutputLayout(place.parameters().output)
    claim(place.deployment.storage, layout, Owner("holder", "flowers", ProcessIdentity.current()))
    with pytest.raises(ServiceLocked, match="run holder"):
        place.run("second")
    with pytest.raises(OutputRefused, match="in use by the service flowers"):
        place.run("third", name="trees")


def test_a_dead_holders_lock_is_taken_at_once(place):
    place.put("a.csv")
    layout = OutputLayout(place.parameters().output)
    claim(place.deployment.storage, layout, Owner("holder", "flowers", dead_process()))
    assert place.run("second").state == "finished"


def test_a_process_of_another_container_of_this_host_is_unknown():
    current = ProcessIdentity.current()
    assert current.state() == "alive"
    assert dead_process().state() == "gone"
    assert dataclasses.replace(current, namespace="pid:[1]").state() == "unknown"
    assert dataclasses.replace(dead_process(), namespace="pid:[1]").state() == "unknown"


def test_an_unknown_holder_is_waited_for(tmp_path):
    place = Place.at(tmp_path, BATCH_PIPELINE_LOCK_SECONDS="1")
    place.put("a.csv")
    layout = OutputLayout(place.parameters().output)
    claim(place.deployment.storage, layout, Owner("holder", "flowers"))
    began = time.monotonic()
    assert place.run("second").state == "finished"
    assert time.monotonic() - began >= 1


def test_the_folder_is_given_back_at_the_end_and_when_refused(place):
    place.put("a.csv")
    place.run()
    assert not (place.output / "_batch/lock.json").exists()
    with pytest.raises(Refused):
        place.run("second", node_count=2)
    assert not (place.output / "_batch/lock.json").exists()


def test_deleting_results_leaves_what_is_not_the_services(place):
    place.put("a.csv")
    place.run()
    (place.output / "infer-result/keep.txt").write_text("x")
    assert service.delete_results(place.parameters().output, "flowers", place.deployment) > 0
    assert list(place.files()) == ["infer-result/keep.txt"]
    assert not (place.output / "_batch").exists() or not any((place.output / "_batch").rglob("*.json"))
    shutil.rmtree(place.output)


def elsewhere(name: str = "flowers") -> Owner:
    """A run of another machine: nobody here can say whether it lives."""
    return Owner("elsewhere", name, ProcessIdentity("elsewhere", "boot", 1, "1"))


def test_results_are_not_deleted_under_a_run_of_another_machine(tmp_path):
    place = Place.at(tmp_path, BATCH_PIPELINE_LOCK_SECONDS="1")
    place.put("a.csv")
    parameters, owner = place.parameters(), elsewhere()
    service.ingest(parameters, place.deployment, owner)
    with service.owned(parameters.output, place.deployment, owner):
        for shard in service.plan(parameters, place.deployment, owner):
            service.infer(shard, place.deployment, owner)
        with pytest.raises(ServiceLocked, match="run elsewhere of the service flowers is at work on it"):
            service.delete_results(parameters.output, "flowers", place.deployment)
        with pytest.raises(ServiceLocked, match="has ended, but a process of it is still at work"):
            service.delete_results(parameters.output, "flowers", place.deployment, is_gone=lambda _: True)
    assert service.publish(parameters, place.deployment, owner).state == "finished"


def test_deleting_results_leaves_no_lock_of_a_dead_run_behind(tmp_path):
    place = Place.at(tmp_path, BATCH_PIPELINE_LOCK_SECONDS="1")
    place.put("a.csv")
    service.ingest(place.parameters(), place.deployment, elsewhere())
    assert service.delete_results(place.parameters().output, "flowers", place.deployment) > 0
    assert not [path for path in place.output.rglob("*") if path.is_file()]
    assert place.run(name="trees").state == "finished"


@pytest.mark.parametrize("name", ["trees", None])
def test_where_a_service_has_no_results_nothing_is_deleted_and_no_lock_taken(place, name):
    place.put("a.csv")
    if name:
        place.run(name=name)
    layout = OutputLayout(place.parameters().output)
    claim(place.deployment.storage, layout, elsewhere("trees"))
    before = {path: path.stat().st_mtime_ns for path in place.output.rglob("*")}
    assert service.delete_results(layout.output, "flowers", place.deployment) == 0
    assert {path: path.stat().st_mtime_ns for path in place.output.rglob("*")} == before


def test_the_lock_of_a_service_that_is_no_more_does_not_keep_others_out(tmp_path):
    """Its machine went down before it had written anything else, or somebody has removed the rest."""
    place = Place.at(tmp_path, BATCH_PIPELINE_LOCK_SECONDS="1")
    place.put("a.csv")
    lock = place.output / "_batch/lock.json"
    claim(place.deployment.storage, OutputLayout(place.parameters().output), elsewhere())
    with pytest.raises(OutputRefused, match="in use by the service flowers"):
        place.run(name="trees")
    lock.write_text(json.dumps({**json.loads(lock.read_text()), "beat": time.time() - 60}))
    assert place.run(name="trees").state == "finished"
    assert not lock.exists()


def test_environment_reaches_the_node_and_does_not_leak(place, monkeypatch):
    place.put("a.csv")
    monkeypatch.setenv("SECRET_OF_DEPLOYMENT", "s3cret")
    parameters = place.parameters(environment={"PLAIN": "value", "TOKEN": {"env": "SECRET_OF_DEPLOYMENT"}})
    owner = Owner("run", "flowers")
    service.ingest(parameters, place.deployment, owner)
    (shard,) = service.plan(parameters, place.deployment, owner)
    told = []
    # The first progress is told before the model is loaded, the last after its answers.
    service.infer(
        shard,
        place.deployment,
        owner,
        lambda now: told.append((now.done, os.environ.get("PLAIN"), os.environ.get("TOKEN"))),
    )
    assert told[0] == (0, "value", "s3cret")
    assert told[-1] == (1, "value", "s3cret")
    service.publish(parameters, place.deployment, owner)
    assert "PLAIN" not in os.environ
    assert "TOKEN" not in os.environ
    records = b"".join(path.read_bytes() for path in (place.output / "_batch").rglob("*") if path.is_file())
    assert b"s3cret" not in records
    assert b'"value"' not in records


# --- a folder that was made over between two steps -----------------------------------------------------------


def ingested(place, run_id, **changes):
    """The parameters as the later steps have them, and the owner."""
    parameters, owner = place.parameters(if_changed="overwrite", **changes), Owner(run_id, "flowers")
    return parameters.of(service.ingest(parameters, place.deployment, owner).made_from), owner


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": "iris:1.1.0"}, "model was iris:1.0.0 .* and is iris:1.1.0"),
        ({"node_count": 2}, "node_count was 1 and is 2"),
        ({"environment": {"LANGUAGE": "de"}}, "environment changed: LANGUAGE"),
        ({"join_input": True}, "join_input was False and is True"),
    ],
)
def test_no_step_goes_on_in_a_folder_that_another_run_made_over(place, changes, named):
    place.put("a.csv")
    parameters, owner = ingested(place, "older", model="iris:1.0.0")
    (shard,) = service.plan(parameters, place.deployment, owner)
    service.infer(shard, place.deployment, owner)
    service.release(parameters.output, place.deployment, "older")
    place.push("iris:1.1.0")
    assert place.run("newer", **{"model": "iris:1.0.0", "if_changed": "overwrite", **changes}).state == "finished"
    before = place.files()
    for step in (service.map_columns, service.plan, service.publish):
        with pytest.raises(ServiceMadeOver, match=r"out/ was made over by run newer .* run the service again") as error:
            step(parameters, place.deployment, *([] if step is service.map_columns else [owner]))
        # Without the registry nobody knows which version a name meant.
        assert re.search(named, error.value.message) or (step is not service.map_columns and "model" in changes)
    with pytest.raises(ServiceMadeOver, match="by run newer"):
        service.infer(shard, place.deployment, owner)
    assert place.files() == before


def test_no_step_goes_on_where_another_run_has_started_over_and_no_further(place):
    place.put("a.csv")
    parameters, owner = ingested(place, "older")
    (shard,) = service.plan(parameters, place.deployment, owner)
    service.release(parameters.output, place.deployment, "older")
    place.put("b.csv")
    ingested(place, "newer")
    service.release(parameters.output, place.deployment, "newer")
    for step in (service.infer, service.publish):
        with pytest.raises(ServiceMadeOver, match="by run newer"):
            step(shard if step is service.infer else parameters, place.deployment, owner)


def test_a_step_goes_on_where_another_run_continued_the_same(place):
    """Also with the mapping written out, or the same lines in another manifest."""
    source = place.put("a.csv")
    parameters, owner = ingested(place, "older", input_path=place.manifest(source))
    service.release(parameters.output, place.deployment, "older")
    rule = service.map_columns(parameters, place.deployment).rule
    changes = {"input_path": place.manifest(source, name="copy.manifest"), "mapping": rule}
    assert place.run("newer", **changes).state == "finished"
    assert place.run("newest", input_path=place.manifest(source)).already_finished
    assert service.plan(parameters, place.deployment, owner) == ()
    assert service.publish(parameters, place.deployment, owner).already_finished


def test_what_results_were_made_with_stands_in_their_folder(place):
    place.put("a.csv")
    place.run()
    model = place.deployment.registry.show("iris:1.0.0")
    shutil.rmtree(place.root / "models/iris")
    made = service.made_with(place.parameters(), place.deployment)
    assert (made.model, made.model_sha256, made.model_digest) == ("iris:1.0.0", model.sha256, model.digest)
    assert made.rule["properties"]["input_4"]["index"] == 3


@pytest.mark.parametrize("name", ["lock.json", "service.json"])
@pytest.mark.parametrize(
    "junk", [b"", b"{}", b"[1]", b'{"owner": 1}', b'{"service": 1, "made_from": {}, "attempt": 1}']
)
def test_records_that_something_else_has_written_are_refused(place, name, junk):
    place.put("a.csv")
    place.run()
    (place.output / "_batch" / name).write_bytes(junk)
    with pytest.raises(OutputRefused, match=rf"{name} is no (lock|record) of a service: something else has written it"):
        place.run("again")
    assert (place.output / "_batch" / name).read_bytes() == junk
