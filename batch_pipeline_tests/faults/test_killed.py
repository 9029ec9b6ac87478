"""Services that are killed at random moments, and run again, come to the bytes of one that was left alone.

A few seeded trials; `make test-faults` makes hundreds and writes their figures into docs/reliability.md.
"""

from __future__ import annotations

import io
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage
from batch_pipeline_tests.conftest import S3Server
from batch_pipeline_tests.docs.blocks import ROOT
from batch_pipeline_tests.faults import killer, outputs
from batch_pipeline_tests.places import Place

TRIALS = int(os.environ.get("FAULT_TRIALS", "8"))
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


@pytest.fixture
def bucket(rgw_server: S3Server, rgw_bucket: str, tmp_path: Path) -> Iterator[str]:
    """A bucket with two models and the inputs of each kind of work."""
    storage = Storage()
    place = Place.at(tmp_path)
    place.push("prices:1.0.0", PRICES, "mlp_regressor.onnx")
    place.push("photos:1.0.0", PHOTOS, "images_nchw.onnx")
    for info in place.deployment.storage.list(Location("", f"{tmp_path}/models/"[1:], "file")):
        key = info.location.key.partition("/models/")[2]
        storage.write(Location(rgw_bucket, f"models/{key}"), place.deployment.storage.read(info.location))
    generator = np.random.default_rng(1)
    rows = b"".join(b"%.2f,%.2f,%.2f,%.2f\n" % tuple(row) for row in generator.uniform(0, 8, (60_000, 4)))
    for number in range(5):
        storage.write(Location(rgw_bucket, f"csv/{number}.csv"), rows[: 200_000 * (number + 1)] + b"x,1,2,3\n")
    storage.write(Location(rgw_bucket, "divided/large.csv"), rows)
    for number in range(150):
        storage.write(Location(rgw_bucket, f"small/{number:03}.csv"), rows[20 * number : 20 * number + 20])
    for number in range(60):
        picture = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(picture, "JPEG")
        storage.write(Location(rgw_bucket, f"images/{number:02}.jpg"), picture.getvalue())
    yield rgw_bucket
    storage.delete(info.location for info in storage.list(Location(rgw_bucket, "")))
    storage.connection.client.delete_bucket(Bucket=rgw_bucket)


def test_a_killed_service_that_is_run_again_comes_to_the_same_bytes(bucket, tmp_path):
    killer.preload()
    storage, figures = Storage(), killer.Figures()
    env = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    env |= {
        "BATCH_PIPELINE_MODELS": f"s3://{bucket}/models/",
        "BATCH_PIPELINE_CACHE": str(tmp_path / "cache"),
        "BATCH_PIPELINE_MIN_PART_BYTES": "1000",
    }

    def body(work: str, name: str) -> dict[str, Any]:
        places = {"input_path": f"s3://{bucket}/{work}/", "output_path": f"s3://{bucket}/{name}/"}
        return {"name": name, "error_threshold": 0.5, **places, **WORKS[work]}

    undisturbed, seconds = {}, {}
    for work in WORKS:
        seconds[work] = killer.run_whole(body(work, f"alone-{work}"), env)
        undisturbed[work] = outputs.published(storage, Location(bucket, f"alone-{work}/"))
        assert len([name for name in undisturbed[work] if name.endswith("_result.txt")]) > 0
    for seed in range(TRIALS):
        chance = random.Random(seed)
        work = list(WORKS)[seed % len(WORKS)]
        service, output = body(work, f"trial-{seed}"), Location(bucket, f"trial-{seed}/")
        deaths = killer.run_killed(service, env, chance, 1.2 * seconds[work])
        assert outputs.named_but_absent(storage, output) == [], seed
        killer.run_whole(service, env)
        found = outputs.published(storage, output)
        lost = undisturbed[work].keys() - found.keys()
        assert lost == set(), seed
        assert found == undisturbed[work], seed
        assert outputs.left_over(storage, output) == [], seed
        assert outputs.finished_twice(storage, output) == 0, seed
        figures.trials += 1
        figures.deaths += deaths
        figures.inputs += sum(name.endswith("_result.txt") for name in found)
        figures.by_work[work] += 1
        storage.delete(info.location for info in storage.list(output))
    assert figures.deaths > TRIALS // 2
    if page := os.environ.get("FAULT_FIGURES"):
        write_figures(ROOT / page, figures)


def write_figures(page: Path, figures: killer.Figures) -> None:
    """Of trials that all passed: each of them asserted the zeros."""
    kinds = ", ".join(f"{count} {work}" for work, count in figures.by_work.items())
    lines = [
        f"| trials | {figures.trials} ({kinds}) |",
        f"| processes killed | {figures.deaths} |",
        f"| inputs | {figures.inputs} |",
        "| inputs lost | 0 |",
        "| finished inputs computed again | 0 |",
        "| results or manifests that differ from an undisturbed run | 0 |",
        "| parts or uploads left over | 0 |",
    ]
    table = "\n".join(["| what | how many |", "| --- | --- |", *lines])
    marked = r"(<!-- begin of the figures -->\n).*?(<!-- end of the figures -->)"
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(marked, rf"\1\n{table}\n\n\2", text, flags=re.DOTALL), encoding="utf-8")
