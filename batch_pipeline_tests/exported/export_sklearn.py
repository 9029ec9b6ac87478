"""Makes the models of scikit-learn and LightGBM here, with what they themselves answer (`*.json`).

Run with the project's test extra: `python batch_pipeline_tests/exported/export_sklearn.py`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from lightgbm import LGBMClassifier
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType as LightgbmFloats
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

HERE = Path(__file__).parent


def save(name: str, model: Any, rows: list[list[Any]], answers: dict[str, Any]) -> None:
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())
    (HERE / f"{name}.json").write_text(json.dumps({"rows": rows, "answers": answers}) + "\n")


def iris_classifiers() -> None:
    features, species = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[species]
    sample = features[::30].astype(np.float32)
    model = LogisticRegression(max_iter=1000).fit(features, names)
    answers = {"label": model.predict(sample).tolist(), "probabilities": model.predict_proba(sample).tolist()}
    for name, zipmap in (("logistic_zipmap", True), ("logistic", False)):
        save(name, to_onnx(model, sample[:1], options={"zipmap": zipmap}), sample.tolist(), answers)
    trees = LGBMClassifier(n_estimators=5, num_leaves=7, verbose=-1).fit(features, species)
    answers = {"label": trees.predict(sample).tolist(), "probabilities": trees.predict_proba(sample).tolist()}
    converted = convert_lightgbm(trees, initial_types=[("input", LightgbmFloats([None, 4]))], zipmap=False)
    save("lightgbm", converted, sample.tolist(), answers)


def regressor() -> None:
    features, _ = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(8,), random_state=0, max_iter=300))
    model.fit(features[:, :3], features[:, 3])
    sample = features[::30, :3].astype(np.float32)
    save("mlp_regressor", to_onnx(model, sample[:1]), sample.tolist(), {"variable": model.predict(sample).tolist()})


def named_columns() -> None:
    import pandas as pd

    rows = [["red", "s", 1.0, 3.5], ["blue", "m", 2.0, 1.5], ["red", "l", 3.0, 0.5], ["green", "s", 4.0, 2.5]]
    table = pd.DataFrame(rows, columns=["colour", "size", "weight", "price"])
    encoder = ColumnTransformer(
        [("texts", OneHotEncoder(), ["colour", "size"]), ("numbers", StandardScaler(), ["weight", "price"])]
    )
    model = make_pipeline(encoder, LogisticRegression()).fit(table, ["keep", "sell", "keep", "sell"])
    types = [
        *((name, StringTensorType([None, 1])) for name in ("colour", "size")),
        *((name, FloatTensorType([None, 1])) for name in ("weight", "price")),
    ]
    answers = {"label": model.predict(table).tolist(), "probabilities": model.predict_proba(table).tolist()}
    save("named_columns", to_onnx(model, initial_types=types, options={"zipmap": False}), rows, answers)


if __name__ == "__main__":
    iris_classifiers()
    regressor()
    named_columns()
