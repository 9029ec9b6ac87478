"""The time limit of a call: real models that hang on a value, in ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipeline.node import time_limit
from batch_pipeline.node.batching import BatchingEngine, BatchRule, Stopped, answer_rows
from batch_pipeline.node.csv_fields import RowError
from batch_pipeline.node.engine import OnnxEngine, OutOfMemory, TimedOut
from batch_pipeline.node.time_limit import Call, Endable, TimeLimit
from batch_pipeline_tests.faults import poisons
from batch_pipeline_tests.node.jobs import job, result, rows_schema, run, unit

CPU = ("CPUExecutionProvider",)
REQUEST = rows_schema("x")


@pytest.fixture
def limit() -> Iterator[TimeLimit]:
    with TimeLimit(0.4, grace=60) as limit:
        yield limit


def engine(path: Path, limit: TimeLimit) -> OnnxEngine:
    return OnnxEngine(path, threads=2, providers=CPU, outputs=["y"], limit=limit)


def column(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values, np.float32)[:, None]}


def test_only_the_row_that_hangs_fails_and_the_engine_goes_on(tmp_path: Path, limit: TimeLimit) -> None:
    rows = [1, 2, poisons.ENDLESS, *range(3, 8)]
    with BatchingEngine(engine(poisons.endless(tmp_path / "m.onnx"), limit), BatchRule(most=8)) as batching:
        answered = batching.submit(column(*rows), 8).result()
        assert batching.submit(column(5), 1).result().outputs["y"].tolist() == [[10]]
    assert answered.outputs["y"][:, 0].tolist() == [2, 4, 6, 8, 10, 12, 14]
    assert list(answered.failed) == [2]
    assert answered.failed[2].code == "timed_out"
    assert "longer than" in answered.failed[2].message


def test_a_row_of_a_fixed_batch_has_the_whole_limit_each_time(tmp_path: Path, limit: TimeLimit) -> None:
    endless = engine(poisons.endless(tmp_path / "m.onnx"), limit)
    answered = answer_rows(endless, BatchRule(most=2, fixed=2), column(1, poisons.ENDLESS), 2)
    assert answered.failed == {1: RowError("timed_out", "the model took longer than 0.4 seconds")}


def test_a_call_within_the_limit_is_let_be(tmp_path: Path, limit: TimeLimit) -> None:
    assert engine(poisons.endless(tmp_path / "m.onnx"), limit).run(column(1, 2))["y"].tolist() == [[2], [4]]


class Patient:
    """An engine that takes as long for each row, and is ended after the time of 32."""

    lanes = 1

    def stop(self) -> None: ...

    def __init__(self) -> None:
        self.calls: list[int] = []

    def run(self, inputs: Mapping[str, Any], part: float = 1.0) -> dict[str, Any]:
        self.calls.append(len(inputs["x"]))
        if len(inputs["x"]) > 32 * part or 666 in inputs["x"]:
            raise TimedOut("too long")
        return {"y": inputs["x"] * 2}


def test_a_model_that_is_slow_gets_smaller_calls_from_then_on() -> None:
    slow = Patient()
    answered = answer_rows(slow, BatchRule(most=64), column(*range(256)), 256)
    assert answered.outputs["y"][:, 0].tolist() == [2 * row for row in range(256)]
    assert not answered.failed
    assert slow.calls == [64, 32, 16, 8, 4, *[2] * 128]


def test_a_row_that_hangs_makes_no_call_smaller() -> None:
    engine = Patient()
    answered = answer_rows(engine, BatchRule(most=8), column(1, 2, 666, *range(3, 40)), 40)
    assert list(answered.failed) == [2]
    assert engine.calls[-4:] == [8, 8, 8, 8]


class Slow:
    """An engine that takes so many seconds for each row, of a limit of one."""

    lanes = 1

    def stop(self) -> None: ...

    def run(self, inputs: Mapping[str, Any], part: float = 1.0) -> dict[str, Any]:
        if inputs["x"].sum() > part:
            raise TimedOut("too long")
        return {"y": inputs["x"] * 2}


@given(
    st.lists(st.sampled_from([0.0, 0.01, 0.1, 0.4, 0.9, 1.0, 1.1, 1e9]), min_size=1, max_size=40),
    st.sampled_from([1, 3, 8, 64]),
    st.sampled_from([1, 4]),
)
def test_a_row_fails_only_where_it_takes_too_long_by_itself(seconds: list[float], most: int, multiple: int) -> None:
    answered = answer_rows(Slow(), BatchRule(most=most, multiple=multiple), column(*seconds), len(seconds))
    assert list(answered.failed) == [row for row, one in enumerate(seconds) if one > 1]
    if len(answered.failed) < len(seconds):
        assert answered.outputs["y"][:, 0].tolist() == [np.float32(one) * 2 for one in seconds if one <= 1]


def test_a_call_that_hangs_is_ended_where_the_node_is_stopped(tmp_path: Path) -> None:
    calls: list[Endable] = []

    class Noting(TimeLimit):
        def begin(self, options: Endable, part: float) -> Call:
            call = super().begin(options, part)
            calls.append(options)
            return call

    endless = poisons.endless(tmp_path / "m.onnx")
    with Noting(3600) as limit, BatchingEngine(engine(endless, limit), BatchRule(most=8)) as batching:
        answer = batching.submit(column(1, poisons.ENDLESS), 2)
        while not calls:
            time.sleep(0.01)
        batching.stop()
        with pytest.raises(Stopped):
            answer.result()


def test_the_watch_ends_with_the_limit(tmp_path: Path) -> None:
    with TimeLimit(5):
        assert "time-limit" in [thread.name for thread in threading.enumerate()]
    assert "time-limit" not in [thread.name for thread in threading.enumerate()]


def test_a_csv_has_the_error_in_the_rows_place(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text(f"1\n{poisons.ENDLESS}\n3\n")
    model = poisons.endless(tmp_path / "m.onnx")
    run(job(model, tmp_path / "package", [unit(source)], request=REQUEST, rule=None, batch_seconds=0.4))
    lines = result(source).splitlines()
    assert (lines[0], lines[2]) == (b'{"y":2.0}', b'{"y":6.0}')
    assert b'"code":"timed_out"' in lines[1]


def test_an_operator_that_never_comes_back_is_told_of(tmp_path: Path) -> None:
    told, go_on = [], threading.Event()

    def stuck(what: str) -> None:
        told.append(what)
        go_on.set()

    class Deaf:
        """Options that nobody looks at."""

        terminate = False

    options = Deaf()
    with TimeLimit(0.05, grace=0.05, stuck=stuck) as limit:
        limit.begin(options, 1.0)
        assert go_on.wait(30)
    assert options.terminate
    assert "0.05 seconds" in told[0]


def test_a_process_ends_itself_where_an_operator_never_comes_back(tmp_path: Path) -> None:
    """A real process and a real operator, of a minute or more."""
    poisons.stuck(tmp_path / "m.onnx")
    script = (
        "import sys, numpy as np\n"
        "from batch_pipeline.node.engine import OnnxEngine\n"
        "from batch_pipeline.node.time_limit import TimeLimit\n"
        "from pathlib import Path\n"
        "with TimeLimit(3, grace=1) as limit:\n"
        "    engine = OnnxEngine(Path(sys.argv[1]), threads=1, providers=['CPUExecutionProvider'], outputs=['y'],"
        " limit=limit)\n"
        "    print(engine.run({'x': np.ones((1, 1), np.float32)}), flush=True)\n"
        "    engine.run({'x': np.full((1, 1), float(sys.argv[2]), np.float32)})\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "m.onnx", str(poisons.STUCK)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == time_limit.STUCK, ended.stderr
    assert "2." in ended.stdout
    assert "a call of the model took longer than 3 seconds" in ended.stderr
    assert "does not come back" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_process_ends_itself_where_a_model_does_not_load(tmp_path: Path) -> None:
    """In the trial of its package it was quick enough, and here it is not."""
    poisons.folded(tmp_path / "m.onnx")
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from batch_pipeline.models import onnx_model\n"
        "from batch_pipeline.node.engine import OnnxEngine\n"
        "from batch_pipeline.node.time_limit import TimeLimit\n"
        "onnx_model.SECONDS = 2.0\n"
        "with TimeLimit(0.5, grace=0.5) as limit:\n"
        "    OnnxEngine(Path(sys.argv[1]), threads=1, providers=['CPUExecutionProvider'], outputs=['y'], limit=limit)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "m.onnx"], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == time_limit.STUCK, ended.stderr
    assert "the loading of the model took longer than 2 seconds" in ended.stderr
    assert "BATCH_PIPELINE_BATCH_SECONDS" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_model_may_take_longer_to_load_than_a_call() -> None:
    told: list[str] = []
    with TimeLimit(0.05, grace=0.05, stuck=told.append) as limit, limit.loading(60):
        time.sleep(0.4)
    assert not told


def test_a_row_for_which_onnx_runtime_finds_no_memory_fails_alone(tmp_path: Path, limit: TimeLimit) -> None:
    """A matrix of 4 TB, for one row alone."""
    hungry = engine(poisons.stuck(tmp_path / "m.onnx"), limit)
    with pytest.raises(OutOfMemory):
        hungry.run(column(1e6))
    answered = answer_rows(hungry, BatchRule(most=4), column(1, 2, 1e6, 3), 4)
    assert answered.outputs["y"][:, 0].tolist() == [2, 4, 6]
    assert {at: error.code for at, error in answered.failed.items()} == {2: "inference_failed"}


def test_a_call_that_was_ended_says_so(tmp_path: Path, limit: TimeLimit) -> None:
    with pytest.raises(TimedOut, match=r"longer than 0\.1 seconds"):
        engine(poisons.endless(tmp_path / "m.onnx"), limit).run(column(poisons.ENDLESS), 0.25)
