"""Handwritten digits: an image classifier as a model package, and PNG files with known answers."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGES = 120
"""How many images are kept from the training, to be asked about."""


@dataclass(frozen=True)
class LabelledImage:
    """A PNG file (8 × 8, grey) and the digit it shows."""

    name: str
    data: bytes
    digit: str


def write_package(folder: Path) -> None:
    """Train on all images but the last `IMAGES` and write the whole package into `folder`."""
    import numpy as np
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier

    pixels, digits = _pixels()
    inputs = pixels.reshape(len(pixels), -1).astype(np.float32) / 255
    model = MLPClassifier((64,), tol=1e-3, max_iter=300, random_state=7)
    model.fit(inputs[:-IMAGES], digits[:-IMAGES])
    exported = to_onnx(model, inputs[:1], options={"zipmap": False}, target_opset=17)
    (folder / "model.onnx").write_bytes(_take_images(exported).SerializeToString())
    config = _config(accuracy=float(model.score(inputs[-IMAGES:], digits[-IMAGES:])))
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    preprocessing = {"do_resize": False, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=2), encoding="utf-8")
    (folder / "labels.txt").write_text("".join(f"{digit}\n" for digit in range(10)), encoding="utf-8")


def images() -> tuple[LabelledImage, ...]:
    """The images that the model has not seen."""
    from PIL import Image

    pixels, digits = _pixels()
    labelled = []
    for number, (image, digit) in enumerate(zip(pixels[-IMAGES:], digits[-IMAGES:], strict=True)):
        png = io.BytesIO()
        Image.fromarray(image).save(png, format="PNG")
        labelled.append(LabelledImage(f"{number:03d}.png", png.getvalue(), str(digit)))
    return tuple(labelled)


def _pixels() -> tuple[Any, Any]:
    """The data set in a fixed random order, as bytes [N, 8, 8] in 0 … 255, and its digits [N]."""
    import numpy as np
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(7).permutation(len(data.target))
    return np.rint(data.images[order] * (255 / 16)).astype(np.uint8), data.target[order]


def _take_images(model: Any) -> Any:
    """The exported classifier with an image [N, 1, 8, 8] for an input and the class scores for its one output."""
    from onnx import TensorProto, helper

    graph = model.graph
    flatten = helper.make_node("Flatten", ["image"], [graph.input[0].name], axis=1)
    graph.node.insert(0, flatten)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8]))
    scores = next(output for output in graph.output if output.name == "probabilities")
    del graph.output[:]
    graph.output.append(scores)
    return model


def _config(accuracy: float) -> dict[str, Any]:
    label_and_score = {"type": "array", "items": [{"type": "string"}, {"type": "number"}]}
    answer = {"predicted_label": {"type": "string"}, "scores": {"type": "array", "items": label_and_score}}
    return {
        "model_algorithm": "image_classification",
        "model_type": "ONNX",
        "metrics": {"accuracy": round(accuracy, 4)},
        "apis": [
            {
                "protocol": "https",
                "url": "/",
                "method": "post",
                "request": {
                    "Content-type": "multipart/form-data",
                    "data": {"type": "object", "properties": {"images": {"type": "file"}}},
                },
                "response": {"Content-type": "application/json", "data": {"type": "object", "properties": answer}},
            }
        ],
    }
