"""What a machine, or an input, has too little or too much of: a clear error, of the input where it is the input's."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage
from batch_pipeline_tests.conftest import make_bucket, use_server
from batch_pipeline_tests.faults import deadly
from batch_pipeline_tests.faults.memory import REPOSITORY, run_measured
from batch_pipeline_tests.places import ROW, Place

MIB = 2**20


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 200 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("needs root, to mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


SERVICE = """
import json, os, resource, sys
from pathlib import Path
from batch_pipeline.deployment import Deployment
from batch_pipeline.errors import BatchPipelineError
from batch_pipeline.parameters import parse_parameters
from batch_pipeline_tests.places import run_service
root = sys.argv[1]
if "OPEN_FILES" in os.environ:
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(os.environ["OPEN_FILES"]),) * 2)
deployment = Deployment.from_environment()
parameters = parse_parameters({"name": "flowers", "model": "iris", "input_path": f"file://{root}/list.manifest",
    "output_path": f"file://{root}/out/", **json.loads(sys.argv[2])}, settings=deployment.settings)
try:
    print(run_service(parameters, deployment).state)
except BatchPipelineError as error:
    print(type(error).__name__, error.message)
"""


def serve(place: Place, *, status: int = 0, parameters: str = "{}", **env: str) -> str:
    """What a process that runs the service prints."""
    root = place.root
    ended = subprocess.run(
        [sys.executable, "-c", SERVICE, root, parameters],
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "BATCH_PIPELINE_ALLOW_LOCAL_FILES": "true",
            "BATCH_PIPELINE_MODELS": f"file://{root}/models/",
            "BATCH_PIPELINE_CACHE": str(root / "cache"),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == status, ended.stderr
    return ended.stdout.strip()


def test_a_full_scratch_disk_is_named_and_the_service_goes_on_once_there_is_room(tmp_path, full_disk):
    place = Place.at(tmp_path)
    source = place.put("a.csv")
    place.manifest(*[source, *(f"{source}/{number:06}.csv" for number in range(3000))])
    said = serve(place, TMPDIR=str(full_disk))
    assert said.startswith(f"ScratchFull the scratch folder {full_disk} can't be written to"), said
    assert "No space left on device" in said
    assert "TMPDIR" in said
    assert serve(place) == "failed"  # all the others are missing
    assert (place.output / "infer-result/a.csv_result.txt").exists()


def test_a_full_cache_disk_is_named(tmp_path, full_disk):
    place = Place.at(tmp_path)
    place.manifest(place.put("a.csv"))
    (full_disk / "filled").write_bytes(bytes(199 << 10))
    said = serve(place, BATCH_PIPELINE_CACHE=str(full_disk / "cache"))
    assert said.startswith("StorageFailed"), said
    assert f"the cache {full_disk}/cache (BATCH_PIPELINE_CACHE) failed" in said
    assert "No space left on device" in said


def test_some_bad_ones_among_thousands_of_tiny_files_cost_nothing_but_themselves(tmp_path):
    """With few files open at once; one of the bad ones kills the process."""
    place = Place.at(tmp_path)
    for number in range(5000):
        place.put(f"{number // 500}/{number:04}.csv", f"{ROW}\n")
    bad = {
        "0/0007.csv": (gzip.compress(f"{ROW}\n".encode()), "compressed"),
        "5/2500.csv": (f"{deadly.KILLED},1,1,1\n", "engine_died"),
        "9/4998.txt": (ROW, "not_csv"),
    }
    for name, (content, _) in bad.items():
        place.put(name, content)
    (tmp_path / "site").mkdir()
    given = json.dumps({"input_path": f"file://{tmp_path}/in/", "error_threshold": 0.5})
    env = {"OPEN_FILES": "256", "PYTHONPATH": deadly.python_path(tmp_path / "site")}
    serve(place, status=-signal.SIGKILL, parameters=given, **env)
    assert serve(place, parameters=given, **env) == "finished"

    root = f"file://{tmp_path}/in/"
    failed = {
        line["source"].removeprefix(root): line["error"]["code"] for line in place.lines("infer-error-0.manifest")
    }
    assert failed == {name: code for name, (_, code) in bad.items()}
    listed = [line["source"].removeprefix(root) for line in place.lines("infer-result-0.manifest")]
    names = [f"{number // 500}/{number:04}.csv" for number in range(5000)]
    assert listed == [name for name in names if name not in bad]
    answers = {(place.output / f"infer-result/{name}_result.txt").read_text() for name in listed}
    assert len(answers) == 1
    assert answers.pop().count("\n") == 1


ROWS = """
import sys
from pathlib import Path
from batch_pipeline_tests.node.jobs import job, rows_schema, run, unit
folder = Path(sys.argv[1])
names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
units = [unit(path, line) for line, path in enumerate(sorted(folder.glob("*.csv")))]
records, _, _ = run(job("logistic", folder / "package", units, request=rows_schema(*names)))
for line, outcome in sorted(records.by_line.items()):
    print(getattr(outcome, "code", "answered"), getattr(outcome, "message", outcome.__dict__.get("rows")))
"""


def test_a_row_of_100_mb_fails_its_file_alone_in_bounded_memory(tmp_path):
    (tmp_path / "a.csv").write_text(f"{ROW}\n")
    with (tmp_path / "b.csv").open("wb") as file:
        file.write(f"{ROW}\n".encode())
        for _ in range(100):
            file.write(b"1" * MIB)
        file.write(b"\n" + f"{ROW}\n".encode())
    said, peak = run_measured(ROWS, tmp_path)
    assert said.splitlines() == ["answered 1", "row_too_long a row is longer than 64 MiB"]
    assert peak < 700


def test_a_row_that_is_just_short_enough_is_a_row(tmp_path):
    (tmp_path / "a.csv").write_bytes(f"{ROW},".encode() + b"1" * (60 * MIB) + b"\n" + f"{ROW}\n".encode())
    said, peak = run_measured(ROWS, tmp_path)
    assert said == "answered 2"
    assert peak < 1500


@pytest.mark.parametrize("bad", ["", '"5.0",1,2,3', "x,1,2,3"])
def test_fields_that_nobody_takes_cost_no_more_than_their_bytes(tmp_path, bad):
    """In the first row, by which a reader may size itself, and in one that is read exactly."""
    many = b"," * (30 * MIB)
    rows = [f"{ROW},".encode() + many, bad.encode() + many if bad else ROW.encode(), *[ROW.encode()] * 300]
    (tmp_path / "a.csv").write_bytes(b"\n".join(rows) + b"\n")
    said, peak = run_measured(ROWS, tmp_path)
    assert said == "answered 302"
    assert peak < 1500


def test_a_compressed_csv_is_no_csv_and_is_not_unpacked(tmp_path):
    """200 MB of rows in some 400 KB."""
    bomb = gzip.compress(f"{ROW}\n".encode() * (200 * MIB // 16))
    (tmp_path / "a.csv").write_bytes(bomb)
    said, peak = run_measured(ROWS, tmp_path)
    assert said == "compressed the file is compressed (gzip), which a CSV may not be: unpack it first"
    assert peak < 300


@pytest.mark.server
def test_an_object_that_says_it_is_compressed_is_read_as_it_is(moto_server, monkeypatch):
    use_server(moto_server, monkeypatch)
    bucket, storage = make_bucket(), Storage()
    bomb = gzip.compress(bytes(20 * MIB))
    for key in ("plain", "odd//key"):
        storage.connection.client.put_object(Bucket=bucket, Key=key, Body=bomb, ContentEncoding="gzip")
        assert storage.read(Location(bucket, key)) == bomb
