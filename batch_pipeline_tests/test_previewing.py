"""Previews over local files, with a real model; the parameters are those of a service."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_pipeline.deployment import Deployment
from batch_pipeline.errors import InputMissing, ModelRefused
from batch_pipeline.parameters import parse_parameters
from batch_pipeline.previewing import Preview, preview
from batch_pipeline.settings import Settings
from batch_pipeline_tests.faults import poisons

EXPORTED = Path(__file__).parent / "exported"
CONFIG = {
    "model_algorithm": "logistic",
    "model_type": "ONNX",
    "apis": [
        {
            "protocol": "https",
            "request": {
                "Content-type": "application/json",
                "data": {
                    "type": "object",
                    "properties": {f"x{number}": {"type": "number"} for number in range(4)},
                },
            },
        }
    ],
}


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    package = tmp_path / "package"
    package.mkdir()
    shutil.copy(EXPORTED / "logistic.onnx", package / "model.onnx")
    (package / "config.json").write_text(json.dumps(CONFIG))
    models = tmp_path / "models"
    models.mkdir()
    settings = Settings.from_environment(
        {
            "BATCH_PIPELINE_MODELS": f"file://{models}/",
            "BATCH_PIPELINE_ALLOW_LOCAL_FILES": "1",
            "BATCH_PIPELINE_CACHE": str(tmp_path / "cache"),
        }
    )
    deployment = Deployment(settings)
    deployment.registry.push(package, "iris:1.0")
    return deployment


def look(deployment: Deployment, folder: Path, rows: int = 3, **changes: Any) -> Preview:
    data = {
        "model": "iris",
        "input_path": f"file://{folder}/in/",
        "output_path": f"file://{folder}/out/",
        **changes,
    }
    return preview(parse_parameters(data, settings=deployment.settings), deployment, rows=rows)


def put(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_mapping_and_the_first_answers(tmp_path: Path, deployment: Deployment) -> None:
    put(tmp_path, "in/1.csv", "5.1,3.5,1.4,0.2\n6.9,3.2,5.7,x\n")
    put(tmp_path, "in/2.txt", "")
    put(tmp_path, "in/3.csv", "6.9,3.2,5.7,2.3\n" * 1000)
    put(tmp_path, "in/4.csv", "")
    found = look(deployment, tmp_path)
    assert found.model == "iris:1.0"
    assert found.refusal is None
    assert found.rule is not None
    assert [leaf["index"] for leaf in found.rule["properties"].values()] == [0, 1, 2, 3]
    first, second, third = found.inputs
    assert first.pairs[0]["request"] == {"x0": 5.1, "x1": 3.5, "x2": 1.4, "x3": 0.2}
    answer = first.pairs[0]["answer"]
    assert isinstance(answer, dict)
    assert answer["label"] == "setosa"
    wrong = first.pairs[1]["answer"]
    assert isinstance(wrong, dict)
    assert set(wrong) == {"error"}
    assert second.error is not None
    assert second.error.startswith("not_csv")
    assert len(third.pairs) == 1
    assert not (tmp_path / "out").exists()


def test_a_manifest_with_bad_lines(tmp_path: Path, deployment: Deployment) -> None:
    put(tmp_path, "data/1.csv", "5.1,3.5,1.4,0.2\n")
    lines = ["{", json.dumps({"source": f"file://{tmp_path}/data/none.csv"})]
    put(tmp_path, "x.manifest", "\n".join([*lines, json.dumps({"source": f"file://{tmp_path}/data/1.csv"})]))
    bad, missing, good = look(deployment, tmp_path, input_path=f"file://{tmp_path}/x.manifest").inputs
    assert bad.source == "line 1"
    assert "not JSON" in str(bad.error)
    assert str(missing.error).startswith("not_found")
    assert len(good.pairs) == 1


def test_an_output_that_is_in_the_way_is_told(tmp_path: Path, deployment: Deployment) -> None:
    put(tmp_path, "in/1.csv", "5.1,3.5,1.4,0.2\n")
    put(tmp_path, "out/mine.txt", "x")
    found = look(deployment, tmp_path)
    assert "mine.txt" in str(found.refusal)
    assert found.inputs[0].pairs


def test_what_is_wrong_is_refused(tmp_path: Path, deployment: Deployment) -> None:
    with pytest.raises(InputMissing):
        look(deployment, tmp_path)
    put(tmp_path, "in/1.csv", "5.1,3.5,1.4,0.2\n")
    with pytest.raises(ModelRefused):
        look(deployment, tmp_path, model="nothing")
    rule = {"type": "object", "properties": {f"x{n}": {"type": "number", "index": n} for n in range(3)}}
    with pytest.raises(ModelRefused, match="x3"):
        look(deployment, tmp_path, mapping=rule)


def test_a_column_that_no_row_can_have_is_refused(tmp_path: Path, deployment: Deployment) -> None:
    put(tmp_path, "in/1.csv", "5.1,3.5,1.4,0.2\n")
    leaves = {f"x{n}": {"type": "number", "index": n or 99999999999999999999} for n in range(4)}
    with pytest.raises(ModelRefused, match="mapping rule at x0: an index is at most 2147483647"):
        look(deployment, tmp_path, mapping={"type": "object", "properties": leaves})


def endless(tmp_path: Path, deployment: Deployment) -> None:
    """A model that never comes to an end with the row of the input."""
    package = tmp_path / "endless"
    package.mkdir()
    poisons.endless(package / "model.onnx")
    leaf = {"type": "object", "properties": {"x": {"type": "number"}}}
    entry = {"request": {"Content-type": "application/json", "data": leaf}}
    (package / "config.json").write_text(json.dumps(CONFIG | {"apis": [entry]}))
    assert deployment.registry.push(package, "endless:1").reasons == ()
    put(tmp_path, "in/1.csv", f"1\n{poisons.ENDLESS}\n")


def test_a_row_has_as_much_time_as_in_the_service(tmp_path: Path, deployment: Deployment) -> None:
    endless(tmp_path, deployment)
    hasty = Deployment(replace(deployment.settings, batch_seconds=0.4))
    good, late = look(hasty, tmp_path, model="endless").inputs[0].pairs
    assert good["answer"] == {"y": 2.0}
    assert "timed_out" in str(late["answer"])


def test_an_interrupt_ends_it_while_it_computes(tmp_path: Path, deployment: Deployment) -> None:
    """A call that would not end for years."""
    endless(tmp_path, deployment)

    def interrupt() -> None:
        while "engine-0" not in [thread.name for thread in threading.enumerate()]:
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    # It may be ignored, as where a shell started the tests in the background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            look(deployment, tmp_path, model="endless")
        interrupting.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert "engine-0" not in [thread.name for thread in threading.enumerate()]


def test_the_first_files_of_a_model_that_takes_files(tmp_path: Path, deployment: Deployment) -> None:
    from PIL import Image

    package = tmp_path / "images"
    package.mkdir()
    shutil.copy(EXPORTED / "images_nchw.onnx", package / "model.onnx")
    request = {
        "Content-type": "multipart/form-data",
        "data": {"type": "object", "properties": {"images": {"type": "file"}}},
    }
    config = {"model_algorithm": "image_classification", "model_type": "ONNX", "apis": [{"request": request}]}
    (package / "config.json").write_text(json.dumps(config))
    assert deployment.registry.push(package, "images:1").reasons == ()
    (tmp_path / "in").mkdir()
    for name in ("1.png", "3.png"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / "in" / name)
    put(tmp_path, "in/2.png", "not an image")
    found = look(deployment, tmp_path, rows=2, model="images")
    assert found.rule is None
    first, broken, last = found.inputs
    assert "predicted_label" in str(first.pairs[0]["answer"])
    assert broken.error is not None
    assert len(last.pairs) == 1
