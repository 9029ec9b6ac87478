"""Images through a network, by the service and by the best loop over images that are in memory already."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import agreement, data, networks
from benchmarks.outcome import Outcome, Work, compared
from benchmarks.workbench import Done, Workbench, less

if TYPE_CHECKING:
    from onnx import ModelProto


def against_memory(bench: Workbench, name: str, network: Callable[[], ModelProto], images: int) -> list[Outcome]:
    """The loop says itself how long it took, as the images come into its memory before.

    Ours reads them from the store, which works on the same cores, and from the disk, where nothing else works.
    """
    bench.push(name, lambda folder: networks.write_package(folder, network))
    whole = "images/"
    places = {"from the store": bench, "from the disk": bench.on_disk()}
    for place in places.values():
        place.put("images/", data.image_files(images))
        one = place.put("image/", data.image_files(1))
        if not bench.quick:
            place.clear(place.deploy(name, one))
    pairs: dict[str, list[tuple[Work, Work]]] = {where: [] for where in places}
    for number in range(bench.runs):
        for where, place in places.items():
            ours = place.deploy(name, whole)
            loop = bench.rival("memory_images", whole, f"models/{name}/1/model.onnx")
            start = None if bench.quick else place.deploy(name, one)
            said = json.loads(loop.usage.text)
            if number == 0:
                agreement.same(_best(place, ours), np.array(said["answers"]), "loop in memory")
            place.clear(ours, *filter(None, [start]))
            pairs[where].append((less(ours, start), Work(said["seconds"], said["cpu"])))
    work = f"{images:,} images, JPEG 640 × 480 of 100 kB, {name}"
    measure = "images/s against the best loop in memory"
    return [compared(f"{work}, {where}", measure, 0.95, found, images, "images") for where, found in pairs.items()]


def _best(bench: Workbench, done: Done) -> np.ndarray:
    """The best label of each image, by its number, and its probability."""
    results = bench.results(done)
    best = [json.loads(results[name])["scores"][0] for name in sorted(results)]
    return np.array([[int(label.split()[1]), score] for label, score in best])
