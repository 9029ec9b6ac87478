"""A whole node over real files and models that real tools exported: every answer is ONNX Runtime's own."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from batch_pipeline.errors import NodeFailed
from batch_pipeline.node import run as run_module
from batch_pipeline.node import worker
from batch_pipeline.node.job import Progress, Unit, UnitError, UnitResult
from batch_pipeline.node.preview import preview_csv, preview_file
from batch_pipeline.parameters import CsvOptions
from batch_pipeline_tests.node.jobs import EXPORTED, job, location, result, rows_schema, run, unit

FOUR = rows_schema("a", "b", "c", "d")
IRIS = (
    "5.1,3.5,1.4,0.2",
    "4.8,3.1,1.6,0.2",
    "5.0,2.0,3.5,1.0",
    "6.5,3.0,5.8,2.2",
)


def direct(model: str, inputs: dict[str, Any]) -> dict[str, Any]:
    session = ort.InferenceSession(EXPORTED / f"{model}.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def answers(text: bytes) -> list[Any]:
    assert text == b"" or text.endswith(b"\n")
    return [json.loads(line) for line in text.split(b"\n")[:-1]]


def as_floats(rows: list[str]) -> Any:
    return np.array([[float(field) for field in row.split(",")] for row in rows], np.float32)


@pytest.mark.parametrize("model", ["logistic", "lightgbm", "logistic_zipmap"])
def test_every_rows_answer_is_onnx_runtimes(tmp_path: Path, model: str) -> None:
    rows = list(IRIS) * 25
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    records, progress, sample = run(job(model, tmp_path / "m", [unit(tmp_path / "a.csv")], request=FOUR))
    (name,) = (each.name for each in ort.InferenceSession(EXPORTED / f"{model}.onnx").get_inputs())
    expected = direct(model, {name: as_floats(rows)})
    found = answers(result(tmp_path / "a.csv"))
    assert len(found) == 100
    for number, row in enumerate(found):
        for output, value in expected.items():
            one = value[number]
            if isinstance(one, dict):
                assert {key: np.float32(p) for key, p in row[output].items()} == {
                    str(key): np.float32(p) for key, p in one.items()
                }
            elif isinstance(one, str) or np.ndim(one) == 0:
                assert row[output] == (one if isinstance(one, str) else one.item())
            else:
                wide = np.array(row[output], value.dtype).reshape(np.shape(one))
                np.testing.assert_allclose(wide, one, rtol=1e-6)
    assert (progress.done, progress.rows, progress.failed_rows) == (1, 100, 0)
    (outcome,) = records.outcomes
    assert isinstance(outcome, UnitResult)
    assert (outcome.rows, outcome.failed_rows, outcome.size) == (100, 0, len(result(tmp_path / "a.csv")))
    assert len(sample) == 3
    first: Any = sample[0]["request"]
    assert first == {"rows": [{"a": 5.1, "b": 3.5, "c": 1.4, "d": 0.2}]}
    assert sample[0]["answer"] == found[0]


def test_string_columns_and_several_inputs(tmp_path: Path) -> None:
    known = json.loads((EXPORTED / "named_columns.json").read_text())
    lines = [",".join(map(str, row)) for row in known["rows"]]
    (tmp_path / "a.csv").write_text("\r\n".join(lines))
    names = [each.name for each in ort.InferenceSession(EXPORTED / "named_columns.onnx").get_inputs()]
    schema = rows_schema(**{
        name: "string" if isinstance(value, str) else "number"
        for name, value in zip(names, known["rows"][0], strict=True)
    })  # fmt: skip
    run(job("named_columns", tmp_path / "m", [unit(tmp_path / "a.csv")], request=schema))
    found = answers(result(tmp_path / "a.csv"))
    assert [row["label"] for row in found] == known["answers"]["label"]
    np.testing.assert_allclose([row["probabilities"] for row in found], known["answers"]["probabilities"], rtol=1e-5)


def test_bad_rows_stand_in_their_places(tmp_path: Path) -> None:
    (tmp_path / "a.CSV").write_bytes(b"\xef\xbb\xbf5.1,3.5,1.4,0.2\nx,1,2,3\n\n1,2\n1,2,\xff,4\n4.8,3.1,1.6,0.2,extra")
    records, progress, _ = run(job("logistic", tmp_path / "m", [unit(tmp_path / "a.CSV")], request=FOUR))
    found = answers(result(tmp_path / "a.CSV"))
    codes = [row["error"]["code"] if "error" in row else None for row in found]
    assert codes == [None, "not_a_number", "too_few_fields", "too_few_fields", "invalid_utf8", None]
    assert found[1]["error"]["message"] == "column 0 (rows[0].a): 'x' is not a number"
    (outcome,) = records.outcomes
    assert isinstance(outcome, UnitResult)
    assert (outcome.rows, outcome.failed_rows) == (6, 4)
    assert (progress.rows, progress.failed_rows) == (6, 4)


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("join_input", [False, True])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_the_parts_of_a_csv_are_its_whole(tmp_path: Path, header: bool, join_input: bool, line_end: str) -> None:
    rows = [f"{number},{number}.5,1e{number % 5},0.{number}" for number in range(200)]
    rows[7] = "bad,1,2,3"
    path = tmp_path / "a.csv"
    path.write_text("".join(row + line_end for row in (["d,a,b,c"] if header else []) + rows), newline="")
    options: dict[str, Any] = {"request": FOUR, "csv": CsvOptions(header=header), "join_input": join_input}
    if header:
        leaves = {name: {"type": "number", "column": name} for name in "abcd"}
        items = [{"type": "object", "properties": leaves}]
        options["rule"] = {"type": "object", "properties": {"rows": {"type": "array", "items": items}}}
    run(job("logistic", tmp_path / "m", [unit(path)], **options))
    whole = result(path)
    assert len(answers(whole)) == 200
    size = path.stat().st_size
    edges = [0, 5, 6, 7, 8, 100, 1000, size // 2, size - 3, size]
    parts = [
        unit(path, part=part, parts=len(edges) - 1, start=start, end=end)
        for part, (start, end) in enumerate(pairwise(sorted(edges)))
    ]
    _, progress, _ = run(job("logistic", tmp_path / "m", parts, **options))
    together = answers(b"".join(result(path, part) for part in range(len(parts))))
    for found, expected in zip(together, answers(whole), strict=True):
        # The last bit of a float may depend on how many rows went together.
        assert found.pop("probabilities", []) == pytest.approx(expected.pop("probabilities", []), rel=1e-5, abs=1e-9)
        assert found == expected
    assert (progress.rows, progress.failed_rows) == (200, 1)


def test_each_line_carries_its_row_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b,c,a\n5.1,3.5,"1.4",0.2,more\nx,1\n')
    options: dict[str, Any] = {"request": FOUR, "join_input": True}
    run(job("logistic", tmp_path / "m", [unit(path)], csv=CsvOptions(header=True), **options))
    named, short = answers(result(path))
    assert named["input"] == {"a": "5.1", "b": "3.5", "c": "1.4", "3": "0.2", "4": "more"}
    assert set(named) > {"input"}
    assert short["input"] == {"a": "x", "b": "1"}
    assert short["error"]["code"] == "too_few_fields"
    run(job("logistic", tmp_path / "m", [unit(path)], **options))
    assert answers(result(path))[1]["input"] == ["5.1", "3.5", "1.4", "0.2", "more"]
    number = {"type": "number"}
    options["request"] = rows_schema("a", "b", "c")
    run(job("mlp_regressor", tmp_path / "m", [unit(path)], response=number, **options))
    assert list(answers(result(path))[1]) == ["input", "output"]


def test_no_field_of_a_joined_row_takes_the_place_of_another(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,1,2,1\n5,6,7,8,9\n")
    options = CsvOptions(header=True)
    run(job("logistic", tmp_path / "m", [unit(tmp_path / "a.csv")], request=FOUR, csv=options, join_input=True))
    (answer,) = answers(result(tmp_path / "a.csv"))
    assert answer["input"] == {"1": "5", "1_": "6", "2": "7", "3": "8", "4": "9"}


def test_an_empty_csv_has_an_empty_result(tmp_path: Path) -> None:
    units = []
    for line, content in enumerate([b"", b"\xef\xbb\xbf", b"a,b,c,d\n", b"a,b,c,d"]):
        path = tmp_path / f"{line}.csv"
        path.write_bytes(content)
        units.append(unit(path, line))
    records, _, _ = run(job("logistic", tmp_path / "m", units, request=FOUR, csv=CsvOptions(header=True)))
    assert all(isinstance(one, UnitResult) and (one.rows, one.size) == (0, 0) for one in records.outcomes)
    assert [result(tmp_path / f"{line}.csv") for line in range(4)] == [b""] * 4


def test_an_input_that_cannot_be_read_is_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1,2,3,4")
    (tmp_path / "b.csv").write_text("1,2,3,4")
    (tmp_path / "d.csv").write_text(IRIS[0])
    (tmp_path / "e.csv").write_text("x,y\n1,2\n")
    units = [
        unit(tmp_path / "a.txt", 0),
        unit(tmp_path / "b.csv", 1, etag="another"),
        unit(tmp_path / "secret.csv", 2),
        unit(tmp_path / "d.csv", 3),
    ]
    records, progress, _ = run(job("logistic", tmp_path / "m", units, request=FOUR))
    codes = {line: one.code for line, one in records.by_line.items() if isinstance(one, UnitError)}
    assert codes == {0: "not_csv", 1: "changed", 2: "not_found"}
    assert (progress.done, progress.failed) == (4, 3)
    assert all("secret" not in one.message for one in records.outcomes if isinstance(one, UnitError))
    assert not (tmp_path / "b.csv_result.txt.0").exists()


def test_a_header_that_lacks_a_column_is_the_inputs_error(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,y\n1,2\n")
    rule: dict[str, Any] = rows_schema("a", "b", "c", "d")
    for name, leaf in rule["properties"]["rows"]["items"][0]["properties"].items():
        leaf["column"] = name
    records, _, _ = run(
        job("logistic", tmp_path / "m", [unit(path)], request=FOUR, rule=rule, csv=CsvOptions(header=True))
    )
    (outcome,) = records.outcomes
    assert isinstance(outcome, UnitError)
    assert outcome.code == "column_missing"


def test_a_result_that_cannot_be_written_fails_the_node(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(IRIS[0])
    nowhere = Path("/proc/self/results/result.txt")  # where nobody, not even root, may make a folder
    blocked = Unit(0, "d", location(tmp_path / "a.csv"), location(nowhere))
    with pytest.raises(NodeFailed, match="could not be written"):
        run(job("logistic", tmp_path / "m", [blocked], request=FOUR))


def test_a_result_whose_folder_is_a_file_is_an_error_of_its_input(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(IRIS[0])
    (tmp_path / "file").write_text("")
    blocked = Unit(0, "d", location(tmp_path / "a.csv"), location(tmp_path / "file" / "result.txt"))
    records, _, _ = run(job("logistic", tmp_path / "m", [blocked], request=FOUR))
    (outcome,) = records.outcomes
    assert (outcome.code, "another result" in outcome.message) == ("bad_name", True)


def test_a_node_told_to_stop_leaves_the_rest_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "POLL_SECONDS", 0)
    units = []
    for line in range(60):
        (tmp_path / f"{line}.csv").write_text(IRIS[0])
        units.append(unit(tmp_path / f"{line}.csv", line))
    asked = iter(range(10**6))
    records, progress, _ = run(job("logistic", tmp_path / "m", units, request=FOUR), stopping=lambda: next(asked) > 40)
    assert progress.done == len(records.outcomes) < 60
    for outcome in records.outcomes:
        assert result(tmp_path / f"{outcome.line}.csv")


def test_what_a_recorder_raises_ends_the_node(tmp_path: Path) -> None:
    class Broken:
        def record(self, outcome: object) -> None:
            raise NodeFailed("the ledger is gone")

    (tmp_path / "a.csv").write_text(IRIS[0])
    from batch_pipeline.storage import Storage

    with pytest.raises(NodeFailed, match="ledger"):
        run_module.run_node(
            job("logistic", tmp_path / "m", [unit(tmp_path / "a.csv")], request=FOUR),
            Storage(allow_local=True),
            None,  # type: ignore[arg-type]
            Broken(),
        )


def test_progress_is_told_as_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch_pipeline.node.tally.SECONDS", 0.0)
    (tmp_path / "a.csv").write_text("\n".join(IRIS))
    told: list[Progress] = []
    run(job("logistic", tmp_path / "m", [unit(tmp_path / "a.csv")], request=FOUR), on_progress=told.append)
    assert told[-1] == Progress(done=1, units=1, rows=4, bytes_read=63)


def image_file(path: Path, seed: int, height: int = 12, width: int = 9) -> Any:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.mark.parametrize("model", ["images_nchw", "images_nchw_batch_1", "images_nhwc"])
def test_images_are_answered_one_by_one_whatever_the_batch(tmp_path: Path, model: str) -> None:
    (inner,) = ort.InferenceSession(EXPORTED / f"{model}.onnx").get_inputs()
    height, width = inner.shape[1:3] if "nhwc" in model else inner.shape[2:4]
    units, expected = [], []
    for line in range(70):
        path = tmp_path / f"{line}.png"
        if line == 3:
            path.write_bytes(b"no image")
        else:
            resized = Image.fromarray(image_file(path, line)).resize((width, height), Image.Resampling.BILINEAR)
            tensor = (np.asarray(resized).astype(np.float64) * (1 / 255)).astype(np.float32)
            tensor = tensor if "nhwc" in model else tensor.transpose(2, 0, 1)
            expected.append((path, direct(model, {inner.name: np.ascontiguousarray(tensor[None])})))
        units.append(unit(path, line))
    records, progress, _ = run(job(model, tmp_path / "m", units))
    (name,) = expected[0][1]
    for path, outputs in expected:
        (answer,) = answers(result(path))
        np.testing.assert_allclose(np.array(answer[name], np.float32), outputs[name][0], rtol=1e-5, atol=1e-6)
    bad = records.by_line[3]
    assert isinstance(bad, UnitError)
    assert bad.code == "not_an_image"
    assert (progress.done, progress.failed, progress.rows) == (70, 1, 0)


def test_an_image_classifier_names_its_classes(tmp_path: Path) -> None:
    image_file(tmp_path / "a.png", 1)
    config = {"model_algorithm": "image_classification", "onnx": {"labels": ["rose", "daisy", "tulip"]}}
    run(job("images_nchw", tmp_path / "m", [unit(tmp_path / "a.png")], config=config))
    (answer,) = answers(result(tmp_path / "a.png"))
    assert answer["predicted_label"] == answer["scores"][0][0]
    assert sorted(label for label, _ in answer["scores"]) == ["daisy", "rose", "tulip"]
    assert sum(p for _, p in answer["scores"]) == pytest.approx(1)


@pytest.mark.parametrize("model", ["file_bytes", "file_text"])
def test_models_that_take_the_bytes_of_a_file(tmp_path: Path, model: str) -> None:
    contents = [b"abc", b"hello, world", b"x" * 1000, b""]
    units = []
    for line, content in enumerate(contents):
        (tmp_path / f"{line}.bin").write_bytes(content)
        units.append(unit(tmp_path / f"{line}.bin", line))
    run(job(model, tmp_path / "m", units[:3]))
    (inner,) = ort.InferenceSession(EXPORTED / f"{model}.onnx").get_inputs()
    for line, content in enumerate(contents[:3]):
        data = (
            np.frombuffer(content, np.uint8)
            if model == "file_bytes"
            else np.array([content.decode()], dtype=object).reshape([1] * len(inner.shape))
        )
        (answer,) = answers(result(tmp_path / f"{line}.bin"))
        for name, value in direct(model, {inner.name: data}).items():
            shaped = value.tolist()
            if value.dtype.kind == "f":
                np.testing.assert_array_equal(np.array(answer[name], value.dtype), np.squeeze(value))
            else:
                assert answer[name] in (shaped, shaped[0] if isinstance(shaped, list) else shaped), name


def test_a_preview_shows_first_requests_and_answers(tmp_path: Path) -> None:
    data = "\n".join(["x,1,2,3", *IRIS]).encode()
    pairs = preview_csv(job("logistic", tmp_path / "m", request=FOUR), data, 2)
    assert len(pairs) == 2
    failed: Any = pairs[0]
    assert failed["request"] == {"rows": [{"a": None, "b": 1.0, "c": 2.0, "d": 3.0}]}
    assert failed["answer"]["error"]["code"] == "not_a_number"
    assert preview_csv(job("logistic", tmp_path / "m", request=FOUR), data[:8], 2) == pairs[:1]
    out = io.BytesIO()
    Image.new("RGB", (5, 5)).save(out, "PNG")
    (pair,) = preview_file(job("images_nchw", tmp_path / "i"), out.getvalue())
    assert "answer" in pair


@pytest.mark.parametrize("multiline", [True, False])
def test_a_preview_infers_on_no_more_rows_than_it_shows(
    tmp_path: Path, multiline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_pipeline.node.csv_blocks.LONGEST_ROW", 1000)
    data = b'\xef\xbb\xbf"a\nb",c,d,e\n' if multiline else b"\xef\xbb\xbfa,b,c,d\n"
    data += "\n".join([*IRIS, "1" * 5000]).encode()
    options = CsvOptions(header=True, multiline=multiline)
    pairs = preview_csv(job("logistic", tmp_path / "m", request=FOUR, csv=options), data, 2)
    assert [pair["request"] for pair in pairs] == [
        {"rows": [{"a": 5.1, "b": 3.5, "c": 1.4, "d": 0.2}]},
        {"rows": [{"a": 4.8, "b": 3.1, "c": 1.6, "d": 0.2}]},
    ]
