"""What the demonstration puts in its bucket: two models, CSV files, images with a manifest; and the two services."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_pipeline.demo import digits, iris
from batch_pipeline.deployment import Deployment
from batch_pipeline.locations import Location

BUCKET = "demo"
MODELS = Location(BUCKET, "models/")
IRIS = {
    "name": "iris-demo",
    "description": "Three CSV files on three nodes",
    "model": "iris:1.0.0",
    "input_path": f"s3://{BUCKET}/flowers/",
    "output_path": f"s3://{BUCKET}/flowers-results/",
    "node_count": 3,
}
DIGITS = {
    "name": "digits-demo",
    "description": "Images of a manifest on two nodes",
    "model": "digits",
    "input_path": f"s3://{BUCKET}/digits.manifest",
    "output_path": f"s3://{BUCKET}/digits-results/",
    "node_count": 2,
}


@dataclass(frozen=True)
class DemoService:
    """A service to deploy and what it must answer."""

    parameters: dict[str, Any]
    answer: str
    """The leaf of the answer that is compared, by dotted path."""
    known: Mapping[str, tuple[str, ...]]
    """By source, the right answer for each row (for the one image)."""


def seed(deployment: Deployment) -> tuple[DemoService, ...]:
    """Create the bucket, train and push the models, upload the inputs. The server must be empty."""
    import boto3

    boto3.Session().client("s3").create_bucket(Bucket=BUCKET)
    with tempfile.TemporaryDirectory(prefix="batch-pipeline-demo-") as folder:
        for write_package, ref in ((iris.write_package, "iris:1.0.0"), (digits.write_package, "digits:1.0.0")):
            package = Path(folder, ref.partition(":")[0])
            package.mkdir()
            write_package(package)
            deployment.registry.push(package, ref)
    return _iris(deployment), _digits(deployment)


def _iris(deployment: Deployment) -> DemoService:
    known = {}
    for file in iris.csv_files():
        location = Location(BUCKET, f"flowers/{file.name}")
        deployment.storage.write(location, file.data)
        known[location.uri] = file.species
    return DemoService(IRIS, "data.resp_data.0.predictresult", known)


def _digits(deployment: Deployment) -> DemoService:
    known = {}
    for image in digits.images():
        location = Location(BUCKET, f"images/{image.name}")
        deployment.storage.write(location, image.data)
        known[location.uri] = (image.digit,)
    manifest = "".join(json.dumps({"source": source}) + "\n" for source in known)
    deployment.storage.write(Location(BUCKET, "digits.manifest"), manifest.encode())
    return DemoService(DIGITS, "predicted_label", known)
