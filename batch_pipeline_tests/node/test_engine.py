"""The engine and its batches: real ONNX models, every answer equal to ONNX Runtime called directly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from batch_pipeline.errors import InputFailed, NodeFailed
from batch_pipeline.node.batching import BatchingEngine, BatchRule, Stopped, answer_rows
from batch_pipeline.node.csv_fields import RowError
from batch_pipeline.node.engine import BatchFailed, OnnxEngine, OutOfMemory
from batch_pipeline.node.work import ROWS_AT_ONCE

CPU = ("CPUExecutionProvider",)
Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves a graph of the given nodes as an ONNX file."""

    def saved(nodes: list[Any], inputs: list[Any], outputs: list[Any], initializers: list[Any] | None = None) -> Path:
        graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers or [])
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
        path = tmp_path / "model.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
        return path

    return saved


def doubling(save: Save, batch: int | None) -> Path:
    value = helper.make_tensor_value_info
    return save(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [value("x", TensorProto.FLOAT, [batch, 2])],
        [value("y", TensorProto.FLOAT, [batch, 2])],
    )


def picky(save: Save) -> Path:
    """Gathers a word by index: an index out of range fails the whole call."""
    value = helper.make_tensor_value_info
    words = helper.make_tensor("words", TensorProto.STRING, [3], [b"a", b"b", b"c"])
    return save(
        [helper.make_node("Gather", ["words", "i"], ["word"])],
        [value("i", TensorProto.INT64, [None])],
        [value("word", TensorProto.STRING, [None])],
        [words],
    )


def test_a_file_that_is_no_model_fails_the_node(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(NodeFailed, match=r"model\.onnx does not load"):
        OnnxEngine(path, threads=1, providers=CPU, outputs=[])


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="CUDA is there")
def test_a_missing_provider_fails_the_node_and_says_what_is_there(save: Save) -> None:
    with pytest.raises(NodeFailed) as failed:
        OnnxEngine(
            doubling(save, None), threads=1, providers=("CUDAExecutionProvider", "CPUExecutionProvider"), outputs=["y"]
        )
    for word in ("CUDAExecutionProvider", "CPUExecutionProvider", "onnxruntime-gpu"):
        assert word in failed.value.message


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
@pytest.mark.parametrize("threads", [1, 3])
def test_it_computes_on_so_many_threads_as_it_is_told(save: Save, threads: int) -> None:
    path = doubling(save, None)
    before = len(list(Path("/proc/self/task").iterdir()))
    engine = OnnxEngine(path, threads=threads, providers=CPU, outputs=["y"])
    with BatchingEngine(engine, BatchRule(most=4)) as batching:
        assert len(list(Path("/proc/self/task").iterdir())) - before == threads
        futures = [batching.submit({"x": np.full((1, 2), number, np.float32)}, 1) for number in range(50)]
        assert [future.result().outputs["y"].tolist() for future in futures] == [[[2 * n, 2 * n]] for n in range(50)]


def check_apart(path: Path, width: int) -> None:
    """Rows answered together and in calls of few have the same answers to the last bit."""
    session = ort.InferenceSession(str(path))
    name, outputs = session.get_inputs()[0].name, [output.name for output in session.get_outputs()]
    engine = OnnxEngine(path, threads=2, providers=CPU, outputs=outputs)
    x = np.random.default_rng(7).normal(size=(500, width)).astype(np.float32) * 3
    rule = BatchRule(most=512, multiple=ROWS_AT_ONCE)
    together = answer_rows(engine, rule, {name: x}, 500).outputs
    for few in (1, 2, 3, 7, 62):
        for start in range(0, 500, few):
            rows = x[start : start + few]
            for output, values in answer_rows(engine, rule, {name: rows}, len(rows)).outputs.items():
                assert values.tolist() == together[output][start : start + few].tolist(), (start, few, output)


@pytest.mark.parametrize(("name", "width"), [("logistic", 4), ("lightgbm", 4), ("mlp_regressor", 3)])
def test_a_rows_answer_does_not_depend_on_the_rows_beside_it(name: str, width: int) -> None:
    """These sums come out differently in a product of one row, and in a tree that several threads add up."""
    check_apart(Path(__file__).parents[1] / "exported" / f"{name}.onnx", width)


@pytest.mark.parametrize("operator", ["Softplus", "Elu", "Sin", "Atan"])
def test_a_vectors_left_over_numbers_are_computed_as_the_others(save: Save, operator: str) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 7])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 7])
    check_apart(save([helper.make_node(operator, ["x"], ["y"])], [x], [y]), 7)


class Hungry:
    """An engine with memory for so many rows."""

    lanes = 1

    def stop(self) -> None: ...

    def __init__(self, room: int) -> None:
        self.room = room
        self.calls: list[int] = []

    def run(self, inputs: Mapping[str, Any], part: float = 1.0) -> dict[str, Any]:
        self.calls.append(len(inputs["x"]))
        if len(inputs["x"]) > self.room:
            raise OutOfMemory("no room")
        return {"y": inputs["x"] * 2}


def test_a_batch_that_finds_no_memory_is_halved_and_the_next_ones_are_no_larger() -> None:
    engine, x = Hungry(5), np.arange(64, dtype=np.float32)
    with BatchingEngine(engine, BatchRule(most=16)) as batching:
        answered = batching.submit({"x": x}, 64).result()
    assert answered.outputs["y"].tolist() == (x * 2).tolist()
    assert not answered.failed
    assert engine.calls == [16, 8, *[4] * 16]


class Wide(Hungry):
    """One with two lanes, and room for all."""

    lanes = 2

    def __init__(self) -> None:
        super().__init__(1000)


@pytest.mark.parametrize(("rule", "calls"), [(BatchRule(most=64), 8), (BatchRule(most=16, fixed=16), 2)])
def test_a_lane_takes_its_share_of_what_waits_and_all_of_it_where_calls_must_be_full(
    rule: BatchRule, calls: int
) -> None:
    engine = Wide()
    batching = BatchingEngine(engine, rule)
    answers = [batching.submit({"x": np.array([number], np.float32)}, 1) for number in range(16)]
    with batching:
        found = [float(answer.result().outputs["y"][0]) for answer in answers]
    assert found == [2.0 * number for number in range(16)]
    assert len(engine.calls) <= calls
    assert rule.fixed is not None or max(engine.calls) <= 8


class Slow:
    """An engine whose first call takes until it is let go on."""

    lanes = 1

    def stop(self) -> None: ...

    def __init__(self) -> None:
        self.calls = 0
        self.called, self.go_on = threading.Event(), threading.Event()

    def run(self, inputs: Mapping[str, Any], part: float = 1.0) -> dict[str, Any]:
        self.calls += 1
        self.called.set()
        self.go_on.wait()
        return {"y": inputs["x"] * 2}


def test_a_stopped_engine_ends_the_call_that_is_under_way_and_makes_no_more() -> None:
    engine, x = Slow(), np.ones(16, np.float32)
    with BatchingEngine(engine, BatchRule(most=8)) as batching:
        answers = [batching.submit({"x": x}, 16) for _ in range(3)]
        engine.called.wait()
        batching.stop()
        engine.go_on.set()
    assert engine.calls == 1
    for answer in answers:
        with pytest.raises(Stopped):
            answer.result()


def test_a_call_is_not_filled_up_where_there_is_no_memory_for_it() -> None:
    engine, x = Hungry(3), np.arange(6, dtype=np.float32)
    with BatchingEngine(engine, BatchRule(most=4, multiple=4)) as batching:
        answered = batching.submit({"x": x}, 6).result()
    assert answered.outputs["y"].tolist() == (x * 2).tolist()
    assert engine.calls == [4, 2, 2, 2]


def test_a_row_for_which_there_is_no_memory_fails_alone() -> None:
    answered = answer_rows(Hungry(0), BatchRule(most=4), {"x": np.ones(3, np.float32)}, 3)
    assert answered.failed == dict.fromkeys(range(3), RowError("inference_failed", "no room"))


@pytest.mark.parametrize("batch", [None, 1, 4])
@pytest.mark.parametrize("rows", [1, 3, 4, 9])
def test_a_fixed_batch_is_honoured_and_padding_dropped(save: Save, batch: int | None, rows: int) -> None:
    engine = OnnxEngine(doubling(save, batch), threads=1, providers=CPU, outputs=["y"])
    x = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    answered = answer_rows(engine, BatchRule(most=2, fixed=batch), {"x": x}, rows)
    np.testing.assert_array_equal(answered.outputs["y"], x * 2)
    assert not answered.failed


def test_only_guilty_rows_fail(save: Save) -> None:
    engine = OnnxEngine(picky(save), threads=1, providers=CPU, outputs=["word"])
    i = np.array([0, 7, 1, 2, 9, 0], np.int64)
    answered = answer_rows(engine, BatchRule(most=4), {"i": i}, 6)
    assert sorted(answered.failed) == [1, 4]
    assert answered.outputs["word"].tolist() == ["a", "b", "c", "a"]
    assert "\n" not in answered.failed[1].message


def test_batches_fill_across_files_and_come_back_to_them(save: Save) -> None:
    engine = OnnxEngine(picky(save), threads=1, providers=CPU, outputs=["word"])
    pieces = [[0, 1], [9], [2], [8, 0, 8]]
    with BatchingEngine(engine, BatchRule(most=64)) as batching:
        futures = [batching.submit({"i": np.array(piece, np.int64)}, len(piece)) for piece in pieces]
        answers = [future.result() for future in futures]
    assert [sorted(answer.failed) for answer in answers] == [[], [0], [], [0, 2]]
    words = [list(answer.outputs.get("word", [])) for answer in answers]
    assert words == [["a", "b"], [], ["c"], ["a"]]


def test_inputs_that_cannot_be_made_fail_their_piece_alone(save: Save) -> None:
    def make(piece: int) -> dict[str, Any]:
        if piece == 2:
            raise InputFailed("not_an_image", "the file is no image")
        return {"i": np.array([piece], np.int64)}

    engine = OnnxEngine(picky(save), threads=1, providers=CPU, outputs=["word"])
    with BatchingEngine(engine, BatchRule(most=64)) as batching:
        futures = [batching.submit_unmade(partial(make, piece), 1) for piece in (0, 2, 1, 9)]
        with pytest.raises(InputFailed, match="no image"):
            futures[1].result()
        assert [futures[number].result().outputs.get("word") for number in (0, 2)] == ["a", "b"]
        assert sorted(futures[3].result().failed) == [0]


def test_no_rows_are_answered_without_a_call(save: Save) -> None:
    engine = OnnxEngine(doubling(save, None), threads=1, providers=CPU, outputs=["y"])
    with BatchingEngine(engine, BatchRule(most=4)) as batching:
        assert batching.submit({"x": np.empty((0, 2), np.float32)}, 0).result().outputs == {}


def test_outputs_that_fit_no_row_fail_the_node(save: Save) -> None:
    value = helper.make_tensor_value_info
    path = save(
        [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)],
        [value("x", TensorProto.FLOAT, [None, 2])],
        [value("y", TensorProto.FLOAT, [None, 2])],
    )
    engine = OnnxEngine(path, threads=1, providers=CPU, outputs=["y"])
    with pytest.raises(NodeFailed, match="output 'y'"):
        answer_rows(engine, BatchRule(most=4, ranks={"y": 2}), {"x": np.ones((3, 2), np.float32)}, 3)


def test_a_row_that_fails_is_not_printed_too(save: Save, capfd: pytest.CaptureFixture[str]) -> None:
    engine = OnnxEngine(picky(save), threads=1, providers=CPU, outputs=["word"])
    assert list(answer_rows(engine, BatchRule(most=4), {"i": np.array([0, 9])}, 2).failed) == [1]
    assert capfd.readouterr() == ("", "")


def test_a_wrong_input_is_the_batchs_fault_not_the_nodes(save: Save) -> None:
    engine = OnnxEngine(doubling(save, None), threads=1, providers=CPU, outputs=["y"])
    with pytest.raises(BatchFailed):
        engine.run({"x": np.ones((1, 3), np.float32)})
