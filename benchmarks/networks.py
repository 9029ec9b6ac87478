"""SqueezeNet 1.1 and ResNet-50, layer by layer, with random weights: as much work as with trained ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

SIZE = 224
LABELS = 1000
PREPROCESSING = {
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 2,
    "do_center_crop": True,
    "crop_size": {"height": SIZE, "width": SIZE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def write_package(folder: Path, network: Callable[[], ModelProto]) -> None:
    """An image classifier with ImageNet's preprocessing and as many labels."""
    (folder / "model.onnx").write_bytes(network().SerializeToString())
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING), encoding="utf-8")
    (folder / "labels.txt").write_text("".join(f"label {number}\n" for number in range(LABELS)), encoding="utf-8")
    data = {"type": "object", "properties": {"images": {"type": "file"}}}
    api = {"url": "/", "request": {"Content-type": "multipart/form-data", "data": data}}
    config = {"model_algorithm": "image_classification", "model_type": "ONNX", "apis": [api]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def squeezenet() -> ModelProto:
    net = _Network()
    x = net.pool(net.relu(net.conv("image", 3, 64, 3, stride=2, pad=0)))
    channels = 64
    for place, squeezed in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
        x = net.fire(x, channels, squeezed)
        channels = 8 * squeezed
        if place in (1, 3):
            x = net.pool(x)
    x = net.relu(net.conv(x, channels, LABELS, 1))
    return net.model(net.flat_mean(x))


def resnet50() -> ModelProto:
    net = _Network()
    x = net.pool(net.relu(net.conv("image", 3, 64, 7, stride=2)), pad=1)
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            stride = 2 if block == 0 and width > 64 else 1
            x = net.bottleneck(x, channels, width, stride)
            channels = 4 * width
    return net.model(net.dense(net.flat_mean(x), channels, LABELS))


def write_tiny(folder: Path) -> None:
    """A classifier that takes next to no time: for counting."""
    write_package(folder, _tiny)


def _tiny() -> ModelProto:
    net = _Network()
    return net.model(net.dense(net.flat_mean("image"), 3, LABELS))


class _Network:
    """A graph that grows; every method adds a layer and returns the name of what comes out."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(7)
        self._nodes: list[NodeProto] = []
        self._weights: list[TensorProto] = []

    def conv(
        self,
        x: str,
        channels: int,
        out: int,
        kernel: int,
        *,
        stride: int = 1,
        pad: int | None = None,
        scale: float = 1.0,
    ) -> str:
        weights = self._weight(out, channels, kernel, kernel, scale=scale * (2 / (channels * kernel**2)) ** 0.5)
        pad = kernel // 2 if pad is None else pad
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        return self._add("Conv", [x, weights, self._weight(out, scale=0.01)], **shape)

    def relu(self, x: str) -> str:
        return self._add("Relu", [x])

    def pool(self, x: str, pad: int = 0) -> str:
        return self._add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[pad] * 4, ceil_mode=1 - pad)

    def flat_mean(self, x: str) -> str:
        return self._add("Flatten", [self._add("GlobalAveragePool", [x])], axis=1)

    def dense(self, x: str, channels: int, out: int) -> str:
        weights = self._weight(channels, out, scale=channels**-0.5)
        return self._add("Gemm", [x, weights, self._weight(out, scale=0.01)])

    def fire(self, x: str, channels: int, squeezed: int) -> str:
        x = self.relu(self.conv(x, channels, squeezed, 1))
        sides = [self.relu(self.conv(x, squeezed, 4 * squeezed, kernel)) for kernel in (1, 3)]
        return self._add("Concat", sides, axis=1)

    def bottleneck(self, x: str, channels: int, width: int, stride: int) -> str:
        y = self.relu(self.conv(x, channels, width, 1))
        y = self.relu(self.conv(y, width, width, 3, stride=stride))
        # Random weights would grow from block to block without a batch normalization.
        y = self.conv(y, width, 4 * width, 1, scale=0.2)
        if channels != 4 * width or stride > 1:
            x = self.conv(x, channels, 4 * width, 1, stride=stride, scale=0.7)
        return self.relu(self._add("Add", [x, y]))

    def model(self, output: str) -> ModelProto:
        self._nodes.append(helper.make_node("Identity", [output], ["scores"]))
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
        scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", LABELS])
        graph = helper.make_graph(self._nodes, "network", [image], [scores], self._weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def _add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _weight(self, *shape: int, scale: float) -> str:
        name = f"weight_{len(self._weights)}"
        values = (self._random.standard_normal(shape, dtype=np.float32) * np.float32(scale)).astype(np.float32)
        self._weights.append(numpy_helper.from_array(values, name))
        return name
