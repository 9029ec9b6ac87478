"""Measure a whole service on one node, step by step: rows of a CSV, or small images."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from batch_pipeline import service
from batch_pipeline.deployment import Deployment
from batch_pipeline.locations import Location
from batch_pipeline.ownership import Owner
from batch_pipeline.parameters import parse_parameters
from batch_pipeline.settings import Settings
from benchmarks.inputs import write_csv, write_csv_package, write_image_package, write_images


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of 30 numbers (default: 1,000,000)")
    parser.add_argument("--images", type=int, default=2_000, help="PNG images of 8 × 8 (default: 2,000)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="batch-pipeline-bench-") as folder:
        root = Path(folder)
        write_csv_package(_made(root / "models/table/1"))
        write_image_package(_made(root / "models/digits/1"))
        write_csv(_made(root / "csv") / "rows.csv", arguments.rows)
        write_images(_made(root / "images"), arguments.images)
        for name, model, folder_name, count in (
            ("rows", "table", "csv", arguments.rows),
            ("images", "digits", "images", arguments.images),
        ):
            print(json.dumps(_measure(root, name, model, folder_name, count)))


def _measure(root: Path, name: str, model: str, inputs: str, count: int) -> dict[str, Any]:
    settings = Settings(models=_location(root / "models"), cache=root / "cache", allow_local_files=True)
    deployment = Deployment(settings)
    values = {
        "name": name,
        "model": model,
        "input_path": f"file://{root}/{inputs}/",
        "output_path": f"file://{root}/out-{name}/",
    }
    parameters = parse_parameters(values, settings=settings)
    owner = Owner("benchmark", name)
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    service.ingest(parameters, deployment, owner)
    (shard,) = service.plan(parameters, deployment, owner)
    seconds["plan"] = time.perf_counter() - began
    service.infer(shard, deployment, owner)
    seconds["infer"] = time.perf_counter() - began - seconds["plan"]
    summary = service.publish(parameters, deployment, owner)
    whole = time.perf_counter() - began
    seconds["publish"] = whole - seconds["plan"] - seconds["infer"]
    return {
        name: count,
        "state": summary.state,
        "per second, inference": round(count / seconds["infer"]),
        "per second, whole service": round(count / whole),
        "seconds": {step: round(taken, 2) for step, taken in seconds.items()},
    }


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _location(folder: Path) -> Location:
    return Location("", f"{folder}/".lstrip("/"), "file")


if __name__ == "__main__":
    main()
