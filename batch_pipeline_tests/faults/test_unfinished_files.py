"""What a killed writer leaves on the local disk: removed once the folder is taken over, a living writer's never."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batch_pipeline import service
from batch_pipeline.locations import parse_folder
from batch_pipeline.ownership import Owner
from batch_pipeline.storage import Storage
from batch_pipeline_tests.faults.memory import REPOSITORY
from batch_pipeline_tests.places import Place

WRITER = """
import sys
from batch_pipeline.locations import parse_location
from batch_pipeline.storage import Storage
with Storage(allow_local=True).open_writer(parse_location(sys.argv[1], allow_local=True)) as writer:
    writer.write(b"half")
    print("writing", flush=True)
    sys.stdin.read()
    writer.write(b" and half")
"""
Begin = Callable[[Path], subprocess.Popen[str]]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts processes that are in the midst of writing a file, until their standard input ends."""
    started: list[subprocess.Popen[str]] = []

    def begin(file: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, f"file://{file}"]
        started.append(
            subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == "writing\n"
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def unfinished(folder: Path) -> list[Path]:
    return sorted(folder.rglob(".batch-pipeline-*.unfinished"))


def test_a_dead_writers_file_is_dropped_and_a_living_ones_is_finished(tmp_path: Path, begin: Begin) -> None:
    living, dead = begin(tmp_path / "out/a/living"), begin(tmp_path / "out/a/dead")
    (kept,) = {*unfinished(tmp_path)} - {*unfinished_of(dead)}
    folder, storage = parse_folder(f"file://{tmp_path}/out", allow_local=True), Storage(allow_local=True)
    assert storage.drop_unfinished(folder, lambda _: True) == 0
    dead.kill()
    dead.wait()
    assert storage.drop_unfinished(folder, lambda _: True) == 1
    assert unfinished(tmp_path) == [kept]
    living.communicate("")
    assert living.returncode == 0
    assert [path.name for path in (tmp_path / "out/a").iterdir()] == ["living"]
    assert (tmp_path / "out/a/living").read_text() == "half and half"


def unfinished_of(process: subprocess.Popen[str]) -> list[Path]:
    """The hidden files that a process has open."""
    opened = [link.resolve() for link in Path(f"/proc/{process.pid}/fd").iterdir()]
    return [path for path in opened if path.name.endswith(".unfinished")]


def test_a_service_that_goes_on_drops_what_its_dead_nodes_left(tmp_path: Path, begin: Begin) -> None:
    place = Place.at(tmp_path)
    place.put("a.csv")
    owner = Owner("first", "flowers")
    service.ingest(place.parameters(), place.deployment, owner)
    living, dead = (begin(place.output / f"infer-result/{name}") for name in ("living", "dead"))
    dead.kill()
    dead.wait()
    service.ingest(place.parameters(), place.deployment, owner)
    assert unfinished(place.output) == unfinished_of(living)
    living.kill()
    living.wait()
    assert place.run("first").state == "finished"
    assert unfinished(place.output) == []


def test_a_link_by_such_a_name_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("x")
    link = tmp_path / f"out/.batch-pipeline-{'0' * 32}.unfinished"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "outside")
    folder = parse_folder(f"file://{tmp_path}/out", allow_local=True)
    assert Storage(allow_local=True).drop_unfinished(folder, lambda _: True) == 0
    assert (tmp_path / "outside").read_text() == "x"
