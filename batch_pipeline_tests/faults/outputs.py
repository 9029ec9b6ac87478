"""What a service has left in its output folder, as its user and its operator see it."""

from __future__ import annotations

import json
from collections import Counter

from batch_pipeline.layout import OutputLayout
from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage


def published(storage: Storage, output: Location) -> dict[str, bytes]:
    """What the service's user sees, as if the folder were always of one name."""
    found = [info.location for info in storage.list(output)]
    seen = (location for location in found if not location.key.startswith(output.child("_batch/").key))
    return {
        location.key.removeprefix(output.key): storage.read(location).replace(output.key.encode(), b"out/")
        for location in seen
    }


def named_but_absent(storage: Storage, output: Location) -> list[str]:
    """The results that manifests name and that are not there."""
    there = {f"s3://{info.location.bucket}/{info.location.key}" for info in storage.list(output)}
    manifests = [name for name in there if name.endswith(".manifest") and "infer-result-" in name]
    named = [
        json.loads(line)["inference-loc"]
        for manifest in manifests
        for line in storage.read(Location(output.bucket, manifest.partition(f"{output.bucket}/")[2])).splitlines()
    ]
    return [name for name in named if name not in there]


def left_over(storage: Storage, output: Location) -> list[str]:
    """Orphan parts, and uploads that nobody will finish."""
    parts = [info.location.key for info in storage.list(output.child("_batch/parts/"))]
    answer = storage.connection.client.list_multipart_uploads(Bucket=output.bucket)
    return parts + [upload["Key"] for upload in answer.get("Uploads", [])]


def finished_twice(storage: Storage, output: Location) -> int:
    """How many units were computed again after they had been written down as finished."""
    ledger = OutputLayout(output).ledger
    lines = [line for info in storage.list(ledger) for line in storage.read(info.location).splitlines()]
    records = [json.loads(line) for line in lines]
    units = Counter((record["line"], record["part"]) for record in records)
    return sum(units.values()) - len(units)
