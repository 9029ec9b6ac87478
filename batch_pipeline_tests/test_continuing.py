"""What a try that ended in the middle leaves, and how the next one goes on from there."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from batch_pipeline import service
from batch_pipeline.deployment import Deployment
from batch_pipeline.errors import AccountingFailed
from batch_pipeline.layout import OutputLayout
from batch_pipeline.ledger import WHOLE, LedgerWriter, append_composed, recorded
from batch_pipeline.locations import Location
from batch_pipeline.node.job import UnitError, UnitResult
from batch_pipeline.ownership import Owner
from batch_pipeline.storage import Storage
from batch_pipeline_tests.faults import outputs
from batch_pipeline_tests.faults.mortal import Died, Fate, MortalStorage
from batch_pipeline_tests.places import ROW, Place

OWNER = Owner("run", "flowers")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.at(tmp_path)


def planned(place: Place, **changes: object) -> tuple[service.ServiceParameters, tuple[service.Shard, ...]]:
    parameters = place.parameters(**changes)
    service.ingest(parameters, place.deployment, OWNER)
    return parameters, service.plan(parameters, place.deployment, OWNER)


def test_records_of_later_tries_come_later_whatever_their_names_are(tmp_path, storage):
    """Within one attempt too: of its tries only the turn says which was last, the rest of a name is random."""
    layout = OutputLayout(Location("", f"{tmp_path}/out/"[1:], "file"))
    for size in range(1, 9):
        with LedgerWriter(storage, layout, attempt=1, node=0) as writer:
            assert writer.is_continued == (size > 1)
            writer.record(UnitResult(1, "00" * 32, 0, "etag", size))
            writer.record(UnitError(2, "00" * 32, 0, "x", "") if size % 2 else UnitResult(2, "00" * 32, 0, "", size))
        with LedgerWriter(storage, layout, attempt=1, node=1) as another:
            another.record(UnitResult(3, "00" * 32, 0, "etag", size))
        append_composed(storage, layout, "", [UnitResult(1, "00" * 32, WHOLE, "etag", 10 * size)], attempt=1)
    rows = [row for frame in recorded(storage, layout, "") for row in frame.iter_rows(named=True)]
    assert [row["result_size"] for row in rows if row["line"] == 1] == [n for s in range(1, 9) for n in (s, 10 * s)]
    assert [row["result_size"] for row in rows if row["line"] == 2] == [None, 2, None, 4, None, 6, None, 8]
    assert [row["result_size"] for row in rows if row["line"] == 3] == list(range(1, 9))


def test_a_step_that_is_tried_again_in_the_first_attempt_does_only_what_is_left(place):
    for name in "abc":
        place.put(f"{name}.csv")
    parameters, (shard,) = planned(place)
    service.infer(shard, place.deployment, OWNER)
    (place.output / "infer-result/b.csv_result.txt").unlink()
    seen = {path: path.stat().st_mtime_ns for path in (place.output / "infer-result").iterdir()}
    report = service.infer(shard, place.deployment, OWNER)
    assert (report.progress.done, report.progress.bytes_read) == (3, len(ROW) + 1)
    assert {path: path.stat().st_mtime_ns for path in seen} == seen
    assert service.publish(parameters, place.deployment, OWNER).succeeded == 3


@pytest.mark.parametrize("lost", [True, False])
def test_a_part_that_is_lost_or_replaced_is_named_by_its_input_and_made_anew(place, lost):
    place.put("a.csv")
    place.put("big.csv", 300 * f"{ROW}\n")
    parameters, shards = planned(place, node_count=2)
    for shard in shards:
        service.infer(shard, place.deployment, OWNER)
    part = place.output / "_batch/parts/2-1"
    kept = part.read_bytes()
    part.unlink() if lost else part.write_bytes(kept[:-1])
    with pytest.raises(AccountingFailed, match="parts of the result of input line 2 are not in") as error:
        service.publish(parameters, place.deployment, OWNER)
    assert (error.value.missing, error.value.first) == (1, ({"line": 2, "source": f"file://{place.root}/in/big.csv"},))
    assert list(place.files()) == ["infer-result/a.csv_result.txt"]
    for shard in shards:
        service.infer(shard, place.deployment, OWNER)
    assert part.read_bytes() == kept
    assert service.publish(parameters, place.deployment, OWNER).rows == 301


def mortal(place: Place, fate: Fate) -> Place:
    """The same, in a process that will come to its fate."""
    deployment = Deployment(place.deployment.settings)
    deployment.storage = MortalStorage(place.parameters().output, (fate,), allow_local=True)
    return Place(place.root, deployment)


def test_who_dies_before_the_summary_has_removed_the_parts_or_the_next_one_does(place):
    place.put("big.csv", 300 * f"{ROW}\n")
    parameters, shards = planned(place, node_count=2)
    for shard in shards:
        service.infer(shard, place.deployment, OWNER)
    for fate in (Fate("parts/", 0, "dies before"), Fate("summary", 0, "dies before")):
        with pytest.raises(Died):
            service.publish(parameters, mortal(place, fate).deployment, OWNER)
        assert not (place.output / "_batch/summary.json").exists()
    assert not list((place.output / "_batch/parts").iterdir())
    assert service.publish(parameters, place.deployment, OWNER).rows == 300
    assert (place.output / "_batch/summary.json").exists()


@pytest.mark.parametrize("how", ["dies before", "dies halfway", "dies after"])
def test_a_service_that_starts_over_takes_the_manifests_away_first(place, how):
    """All result manifests are the sign of a finished service: whatever is gone, they were gone before."""
    place.put("a.csv")
    place.put("notes.txt", "no rows")
    place.run(error_threshold=1)
    before = place.files().keys()
    signs = {name for name in before if name.startswith("infer-result-")}
    for nth in range(12):
        changes = {"error_threshold": 1, "join_input": True, "if_changed": "overwrite"}
        with pytest.raises(Died):
            mortal(place, Fate("", nth, how)).run(f"over-{nth}", **changes)
        there = place.files().keys()
        (place.output / "_batch/lock.json").unlink(missing_ok=True)
        if not signs <= there:
            return
        assert there == before
    pytest.fail("nothing was removed")


def _hold(bucket: str, key: str, told: object) -> None:
    writer = Storage().open_writer(Location(bucket, key))
    writer.write(b"x" * (12 << 20))
    told.send(None)  # type: ignore[attr-defined]
    told.recv()  # type: ignore[attr-defined]


def test_the_uploads_of_a_writer_that_was_killed_are_removed_at_the_end(tmp_path, rgw_bucket):
    place = Place.at(tmp_path)
    place.put("a.csv")
    output = f"s3://{rgw_bucket}/out/"
    processes = multiprocessing.get_context("spawn")
    for key in ("out/infer-result/a.csv_result.txt", "elsewhere/b.txt"):
        ours, theirs = processes.Pipe()
        process = processes.Process(target=_hold, args=(rgw_bucket, key, theirs))
        process.start()
        ours.recv()
        process.kill()
        process.join()
    storage = place.deployment.storage
    here = Location(rgw_bucket, "out/")
    assert sorted(outputs.left_over(storage, here)) == ["elsewhere/b.txt", "out/infer-result/a.csv_result.txt"]
    assert place.run(output_path=output).state == "finished"
    assert outputs.left_over(storage, here) == ["elsewhere/b.txt"], "another's is none of ours"
    manifest = storage.read(Location(rgw_bucket, "out/infer-result-0.manifest"))
    assert json.loads(manifest)["inference-loc"] == f"{output}infer-result/a.csv_result.txt"


OWN = (
    "_batch/parts/0-1",
    "infer-error-0.manifest",
    "infer-result-0.manifest",
    "infer-result/a.csv_result.txt",
)
OTHERS = (
    "by-b/_batch/ledger/0",
    "by-b/infer-result-0.manifest",
    "by-b/infer-result/a.csv_result.txt",
    "infer-result-0.manifest.bak",
    "infer-result/b.csv_result.txt",
    "infer-result/by-b/infer-result/a.csv_result.txt",
    "notes.txt",
)


@pytest.mark.parametrize("then", ["publish", "ingest", "overwrite", "delete"])
def test_the_unfinished_uploads_of_others_in_the_folder_are_left_to_them(tmp_path, rgw_bucket, then):
    """As those of a node of another service, whose folder is in this one."""
    place = Place.at(tmp_path)
    place.put("a.csv")
    parameters, shards = planned(place, output_path=f"s3://{rgw_bucket}/out/")
    storage, here = place.deployment.storage, Location(rgw_bucket, "out/")
    for key in (*OWN, *OTHERS):
        storage.connection.client.create_multipart_upload(Bucket=rgw_bucket, Key=f"out/{key}")
    if then == "publish":
        for shard in shards:
            service.infer(shard, place.deployment, OWNER)
        service.publish(parameters, place.deployment, OWNER)
    elif then == "delete":
        service.release(here, place.deployment, OWNER.run_id)
        assert service.delete_results(here, "flowers", place.deployment) > 0
    else:
        changes = {"join_input": True, "if_changed": "overwrite"} if then == "overwrite" else {}
        service.ingest(place.parameters(output_path=here.uri, **changes), place.deployment, OWNER)
    assert sorted(outputs.left_over(storage, here)) == [f"out/{key}" for key in OTHERS]


def recorded_in(place: Place) -> list[Path]:
    return sorted((place.output / "_batch/ledger").iterdir())


def test_records_of_another_division_do_not_count(place, caplog):
    """Over the same inputs, as if by other bounds: lines, parts, sources and their versions are the same."""
    place.put("a.csv")
    place.put("big.csv", "".join(f"5.1,3.{number % 10},1.4,0.{number % 7}\n" for number in range(300)))
    parameters, shards = planned(place, node_count=2)
    for shard in shards:
        service.infer(shard, place.deployment, OWNER)
    earlier = {path.name: path.read_bytes() for path in recorded_in(place)}
    # As an attempt to start over leaves it that is killed, where what it was to change is then put back.
    (place.output / "_batch/plan/plan.json").unlink()
    (place.output / "_batch/plan/shard-1.parquet").unlink()
    shards = service.plan(parameters, place.deployment, OWNER)
    assert {path.name: path.read_bytes() for path in recorded_in(place)} == earlier
    with pytest.raises(AccountingFailed, match="2 of 2 inputs have no outcome in the ledger"):
        service.publish(parameters, place.deployment, OWNER)
    assert f"do not count: file://{recorded_in(place)[0]}" in caplog.text
    for shard in shards:
        assert service.infer(shard, place.deployment, OWNER).progress.bytes_read > 0
    assert service.publish(parameters, place.deployment, OWNER).rows == 301


def test_a_division_that_is_kept_keeps_its_records(place):
    place.put("a.csv")
    parameters, (shard,) = planned(place)
    service.infer(shard, place.deployment, OWNER)
    (shard,) = service.plan(parameters, place.deployment, OWNER)
    assert service.infer(shard, place.deployment, OWNER).progress.bytes_read == 0


@pytest.mark.parametrize("nth", range(3))
def test_who_dies_while_the_inputs_are_divided_anew_does_not_leave_the_earlier_plan(place, nth):
    """Else its records would be taken for those of the new division."""
    place.put("big.csv", 300 * f"{ROW}\n")
    parameters, shards = planned(place, node_count=2)
    for shard in shards:
        service.infer(shard, place.deployment, OWNER)
    (place.output / "_batch/plan/shard-1.parquet").unlink()
    with pytest.raises(Died):
        service.plan(parameters, mortal(place, Fate("plan/shard-1", nth, "dies after")).deployment, OWNER)
    for shard in service.plan(parameters, place.deployment, OWNER):
        assert service.infer(shard, place.deployment, OWNER).progress.bytes_read > 0


def test_what_is_no_record_of_ours_is_passed_over(place):
    place.put("a.csv")
    parameters, (shard,) = planned(place)
    service.infer(shard, place.deployment, OWNER)
    for name in ("notes.txt", "0001-0-copy.jsonl", "x-y.jsonl", "0002-0-ab-000000.jsonl.bak"):
        (place.output / "_batch/ledger" / name).write_text("{}\n")
    (place.output / "_batch/parts").mkdir()
    (place.output / "_batch/parts/notes.txt").write_text("x")
    assert service.infer(shard, place.deployment, OWNER).progress.bytes_read == 0
    assert service.publish(parameters, place.deployment, OWNER).succeeded == 1


def test_groups_of_parts_that_a_killed_process_had_put_together_are_removed(place):
    """A bucket makes one object of no more than 10,000: of more, first groups are made, beside the parts."""
    place.put("big.csv", 300 * f"{ROW}\n")
    parameters, shards = planned(place, node_count=2)
    for shard in shards:
        service.infer(shard, place.deployment, OWNER)
    left = place.output / "_batch/parts/1-0.composed-0"
    left.write_text("half of it")
    for shard in shards:
        assert service.infer(shard, place.deployment, OWNER).progress.bytes_read == 0
    assert service.publish(parameters, place.deployment, OWNER).rows == 300
    assert not left.exists()
