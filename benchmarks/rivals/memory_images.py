"""Images that are in memory already: decode, resize and infer, as fast as both cores can; nothing is written.

Prints the seconds of the loop alone, and the best label of each image with its probability. An image is prepared as
ImageNet's preprocessing says: what came out in other pixels would be no rival.
"""

from __future__ import annotations

import io
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import obstore
import onnxruntime
from PIL import Image

from benchmarks.rivals.store import bucket, names

CORES = 2
BATCH = 4
"""Images a call, and a model of its own on one thread for each core: faster than one model on two threads."""
SHORTEST, SIZE = 256, 224
MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
SCALE, SHIFT = 1 / (255 * STD), MEAN / STD


def main(store_name: str, folder: str, _output: str, model: str) -> None:
    store = bucket(store_name)
    images = [obstore.get(store, folder + name).bytes().to_bytes() for name in names(store, folder)]
    package = obstore.get(store, model).bytes().to_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [onnxruntime.InferenceSession(package, options) for _ in range(CORES)]
    for session in sessions:
        _scores(session, images[:1])
    began, used = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(CORES) as threads:
        starts = range(0, len(images), BATCH)
        turns = [starts[core::CORES] for core in range(CORES)]
        done = list(threads.map(lambda session, turn: _in_turn(session, images, turn), sessions, turns))
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    scores = np.concatenate([part for _, part in sorted(pair for core in done for pair in core)])
    best = scores.argmax(axis=1)
    answers = [[int(label), float(row[label])] for label, row in zip(best, _softmax(scores), strict=True)]
    print(json.dumps({"seconds": seconds, "cpu": cpu, "answers": answers}))


def _in_turn(session: onnxruntime.InferenceSession, images: list[bytes], turn: range) -> list[tuple[int, np.ndarray]]:
    return [(start, _scores(session, images[start : start + BATCH])) for start in turn]


def _scores(session: onnxruntime.InferenceSession, images: list[bytes]) -> np.ndarray:
    pixels = np.empty((len(images), 3, SIZE, SIZE), np.float32)
    for image, place in zip(images, pixels, strict=True):
        _prepare(image, place)
    scores: np.ndarray = session.run(None, {"image": pixels})[0]
    return scores


def _prepare(data: bytes, place: np.ndarray) -> None:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = min(image.size) / SHORTEST
    width, height = (int(edge / scale) for edge in image.size)
    left, top = (width - SIZE) // 2, (height - SIZE) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    small = resized.crop((left, top, left + SIZE, top + SIZE))
    np.multiply(np.asarray(small).transpose(2, 0, 1), SCALE, out=place)
    place -= SHIFT


def _softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
    return shares


if __name__ == "__main__":
    main(*sys.argv[1:])
