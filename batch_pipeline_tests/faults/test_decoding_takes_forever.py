"""Real images that are small files, within every bound, and take long to decode: each costs itself alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from batch_pipeline.errors import InputFailed
from batch_pipeline.models.preprocessing import ImagePreprocessing
from batch_pipeline.node.apart import run_apart
from batch_pipeline.node.images import file_tensor
from batch_pipeline.node.job import UnitError, UnitResult
from batch_pipeline.node.time_limit import TimeLimit
from batch_pipeline.storage import Storage
from batch_pipeline_tests.faults.test_images_too_large import progressive, small
from batch_pipeline_tests.node.jobs import Records, job, run, unit
from batch_pipeline_tests.node.test_images import image_input

SLOW = progressive(480, 3000)
"""Goes over its 9 million pixels 480 times: seconds."""


def decode(limit: TimeLimit, data: bytes) -> None:
    file_tensor(data, image_input(8, 8), ImagePreprocessing.plain(), lambda: limit.watching("the decoding"))


def test_one_that_comes_back_too_late_has_failed() -> None:
    assert len(SLOW) < 2**20
    with TimeLimit(0.2, grace=60) as limit:
        decode(limit, bytes(small("JPEG")))
        with pytest.raises(InputFailed, match=r"the decoding took longer than 0\.2 seconds") as failed:
            decode(limit, SLOW)
    assert failed.value.code == "timed_out"


def test_one_that_is_decoded_while_the_node_stops_has_not() -> None:
    with TimeLimit(600) as limit:
        limit.end_all()
        decode(limit, bytes(small("JPEG")))


def test_one_that_does_not_come_back_ends_the_process() -> None:
    told: list[str] = []
    with TimeLimit(0.1, grace=0.1, stuck=told.append) as limit, pytest.raises(InputFailed):
        decode(limit, SLOW)
    (said,) = told
    assert said.startswith(
        "the decoding took longer than 0.1 seconds and could not be ended: what it is in does not come back. "
    )
    assert "leaves out the input that this happens on" in said


def images(folder: Path) -> list[Path]:
    files = [folder / f"{name}.jpg" for name in "abc"]
    for file in files:
        file.write_bytes(bytes(small("JPEG")))
    files[1].write_bytes(SLOW)
    return files


def test_a_node_leaves_it_out_and_answers_all_others(tmp_path: Path) -> None:
    made = job("images_nchw", tmp_path / "package", list(map(unit, images(tmp_path), range(3))), batch_seconds=0.7)
    records = Records()
    began = time.monotonic()
    progress, _, lost = run_apart(made, Storage(allow_local=True), None, records)  # type: ignore[arg-type]
    assert time.monotonic() - began < 60
    assert (progress.done, progress.failed, lost) == (3, 1, 1)
    assert isinstance(records.by_line[1], UnitError)
    assert records.by_line[1].code == "timed_out"
    assert {type(records.by_line[line]) for line in (0, 2)} == {UnitResult}


def test_a_node_that_may_take_its_time_answers_it(tmp_path: Path) -> None:
    made = job("images_nchw", tmp_path / "package", list(map(unit, images(tmp_path), range(3))))
    records, _, _ = run(made)
    assert {type(one) for one in records.outcomes} == {UnitResult}
