"""Models and inputs of the benchmark: a 64 × 64 MLP over rows of 30 numbers, the digits of the demonstration."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from batch_pipeline.demo import digits

COLUMNS = 30


def write_csv_package(folder: Path) -> None:
    """A small MLP; what it answers does not matter."""
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPRegressor

    generator = np.random.default_rng(7)
    inputs = generator.normal(size=(200, COLUMNS)).astype(np.float32)
    model = MLPRegressor(hidden_layer_sizes=(64, 64), solver="lbfgs", max_iter=20_000, tol=1e-1, random_state=7)
    model.fit(inputs, inputs.sum(axis=1))
    (folder / "model.onnx").write_bytes(to_onnx(model, inputs[:1], target_opset=17).SerializeToString())
    number = {"type": "number"}
    request = {"type": "object", "properties": {f"x{index}": number for index in range(COLUMNS)}}
    response = {"type": "object", "properties": {"y": number}}
    api = {"protocol": "https", "url": "/", "request": {"data": request}, "response": {"data": response}}
    config = {"model_algorithm": "mlp", "model_type": "ONNX", "apis": [api]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def write_csv(path: Path, rows: int) -> None:
    """Rows of `COLUMNS` numbers with five decimals, about 222 bytes each."""
    block = np.random.default_rng(7).random((10_000, COLUMNS)).round(5)
    text = "".join(",".join(f"{value:.5f}" for value in row) + "\n" for row in block)
    with path.open("w", encoding="ascii") as file:
        for _ in range(rows // len(block)):
            file.write(text)
        file.write("".join(text.splitlines(keepends=True)[: rows % len(block)]))


def write_image_package(folder: Path) -> None:
    digits.write_package(folder)


def write_images(folder: Path, count: int) -> None:
    """The demonstration's images, over and over."""
    images = digits.images()
    for number in range(count):
        (folder / f"{number:06d}.png").write_bytes(images[number % len(images)].data)
