"""The iris flowers: a logistic regression as a model package, and CSV files with known answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPECIES = ("setosa", "versicolor", "virginica")
LARGE_ROWS = 30_000
"""Enough rows (about 480 kB) that one file keeps three nodes busy."""


@dataclass(frozen=True)
class LabelledCsv:
    """A CSV file and the species of each of its rows."""

    name: str
    data: bytes
    species: tuple[str, ...]


def write_package(folder: Path) -> None:
    """Train on the whole data set and write config.json and model.onnx into `folder`."""
    import numpy as np
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    flowers = load_iris()
    inputs = flowers.data.astype(np.float32)
    model = LogisticRegression(max_iter=1000).fit(inputs, np.array(SPECIES)[flowers.target])
    exported = to_onnx(model, inputs[:1], options={"zipmap": False}, target_opset=17)
    (folder / "model.onnx").write_bytes(exported.SerializeToString())
    config = _config(accuracy=float(model.score(inputs, np.array(SPECIES)[flowers.target])))
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def csv_files() -> tuple[LabelledCsv, ...]:
    """The data set itself, one flower alone, and a large file of flowers drawn from it in random order."""
    import numpy as np
    from sklearn.datasets import load_iris

    flowers = load_iris()
    drawn = np.random.default_rng(7).integers(0, len(flowers.target), LARGE_ROWS)
    choices = {"all.csv": range(len(flowers.target)), "large.csv": drawn, "one.csv": [0]}
    return tuple(_csv(name, flowers, [int(row) for row in rows]) for name, rows in choices.items())


def _csv(name: str, flowers: Any, rows: list[int]) -> LabelledCsv:
    lines = [",".join(f"{value:.1f}" for value in flowers.data[row]) for row in rows]
    text = "".join(line + "\n" for line in lines)
    return LabelledCsv(name, text.encode(), tuple(SPECIES[flowers.target[row]] for row in rows))


def _config(accuracy: float) -> dict[str, Any]:
    number = {"type": "number"}
    flower = {"type": "object", "properties": {f"input_{index}": number for index in range(1, 5)}}
    answer = {
        "type": "object",
        "properties": {"predictresult": {"type": "string"}, "probabilities": {"type": "array", "items": number}},
    }
    return {
        "model_algorithm": "logistic_regression",
        "model_type": "ONNX",
        "metrics": {"accuracy": round(accuracy, 4)},
        "apis": [
            {
                "protocol": "https",
                "url": "/",
                "method": "post",
                "request": {"Content-type": "application/json", "data": _wrapped("req_data", flower)},
                "response": {"Content-type": "application/json", "data": _wrapped("resp_data", answer)},
            }
        ],
    }


def _wrapped(key: str, item: dict[str, Any]) -> dict[str, Any]:
    rows = {"type": "object", "properties": {key: {"type": "array", "items": [item]}}}
    return {"type": "object", "properties": {"data": rows}}
