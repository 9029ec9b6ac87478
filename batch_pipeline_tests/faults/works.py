"""What the killed services work on: two models and four kinds of inputs in one bucket, and what must come of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage
from batch_pipeline_tests.faults import outputs
from batch_pipeline_tests.places import Place

WORKS: dict[str, dict[str, Any]] = {
    "csv": {"model": "prices"},
    "divided": {"model": "prices", "node_count": 3},
    "images": {"model": "photos"},
    "small": {"model": "prices", "node_count": 2},
}
NUMBERS = {"type": "object", "properties": {name: {"type": "number"} for name in ("a", "b", "c")}}
PRICES = {
    "model_algorithm": "regression",
    "model_type": "ONNX",
    "apis": [{"url": "/", "request": {"Content-type": "application/json", "data": NUMBERS}}],
}
PHOTOS = {
    "model_algorithm": "image_classification",
    "model_type": "ONNX",
    "apis": [
        {
            "url": "/",
            "request": {
                "Content-type": "multipart/form-data",
                "data": {"type": "object", "properties": {"images": {"type": "file"}}},
            },
        }
    ],
}


@dataclass(frozen=True)
class Verdict:
    """On one service that was killed and run again, against the undisturbed one."""

    inputs: int
    lost: int = 0
    differing: int = 0
    left_over: int = 0
    computed_again: int = 0


@dataclass
class Works:
    """A bucket with the models and the inputs."""

    bucket: str
    storage: Storage

    def body(self, work: str, name: str) -> dict[str, Any]:
        """The parameters of a service."""
        places = {"input_path": f"s3://{self.bucket}/{work}/", "output_path": self.output(name).uri}
        return {"name": name, "error_threshold": 0.5, **places, **WORKS[work]}

    def output(self, name: str) -> Location:
        return Location(self.bucket, f"{name}/")

    def published(self, name: str) -> dict[str, bytes]:
        """By the service of that name."""
        return outputs.published(self.storage, self.output(name))

    def judge(self, name: str, undisturbed: Mapping[str, bytes]) -> Verdict:
        """What a service came to in the end; its output folder is then emptied."""
        output, found = self.output(name), self.published(name)
        verdict = Verdict(
            sum(result.endswith("_result.txt") for result in found),
            lost=len(undisturbed.keys() - found.keys()),
            differing=sum(undisturbed.get(key) != content for key, content in found.items()),
            left_over=len(outputs.left_over(self.storage, output)),
            computed_again=outputs.finished_twice(self.storage, output),
        )
        self.storage.delete(info.location for info in self.storage.list(output))
        return verdict


def prepare(bucket: str, folder: Path) -> Works:
    """Fills the bucket; `folder` is scratch."""
    storage, place = Storage(), Place.at(folder)
    place.push("prices:1.0.0", PRICES, "mlp_regressor.onnx")
    place.push("photos:1.0.0", PHOTOS, "images_nchw.onnx")
    for info in place.deployment.storage.list(Location("", f"{folder}/models/"[1:], "file")):
        key = info.location.key.partition("/models/")[2]
        storage.write(Location(bucket, f"models/{key}"), place.deployment.storage.read(info.location))
    generator = np.random.default_rng(1)
    rows = b"".join(b"%.2f,%.2f,%.2f,%.2f\n" % tuple(row) for row in generator.uniform(0, 8, (60_000, 4)))
    for number in range(5):
        storage.write(Location(bucket, f"csv/{number}.csv"), rows[: 200_000 * (number + 1)] + b"x,1,2,3\n")
    storage.write(Location(bucket, "divided/large.csv"), rows)
    for number in range(150):
        storage.write(Location(bucket, f"small/{number:03}.csv"), rows[20 * number : 20 * number + 20])
    for number in range(60):
        picture = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(picture, "JPEG")
        storage.write(Location(bucket, f"images/{number:02}.jpg"), picture.getvalue())
    return Works(bucket, storage)
