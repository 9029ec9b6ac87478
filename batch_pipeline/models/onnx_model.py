"""What an ONNX file takes and gives, as ONNX Runtime reads it. Running it is the compute node's work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_pipeline.errors import ModelRefused
from batch_pipeline.models import onnx_trial
from batch_pipeline.models.binding import Tensor

SECONDS = 120.0
"""The longest that a small file may take to load; a large one has a second more for each 16 MiB."""
_BYTES_A_SECOND = 16 * 2**20
_NEEDED = re.compile(r"PATH|HOME|TMPDIR|LANG|LC_.*|PYTHON.*|LD_LIBRARY_PATH|DYLD_.*|MALLOC_.*|COVERAGE_.*")
"""Variables that a Python needs to start. What a package does there, it does without the deployment's secrets."""
_ELEMENTS = {"float": "float32", "double": "float64"}


@dataclass(frozen=True)
class OnnxModel:
    """Inputs and outputs of an ONNX graph, in its order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def inspect(path: Path) -> OnnxModel:
    """Loads an ONNX file and the external data beside it, in a process of its own.

    Raises ModelRefused, in one line, where it does not load, takes too long, or kills ONNX Runtime.
    """
    seconds = seconds_to_load(path)
    environment = {name: value for name, value in os.environ.items() if _NEEDED.fullmatch(name)}
    try:
        trial = subprocess.run(
            [sys.executable, "-P", onnx_trial.__file__, str(path)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelRefused(f"{path.name} does not load: it had not after {seconds:.0f} seconds") from None
    found = _answer(trial.stdout)
    if found is None:
        how = f"signal {-trial.returncode}" if trial.returncode < 0 else f"exit status {trial.returncode}"
        raise ModelRefused(f"{path.name} does not load: ONNX Runtime came to its end over it ({how})")
    if "error" in found:
        raise ModelRefused(f"{path.name} does not load: {_one_line(found['error'], path)}")
    return OnnxModel(tuple(map(_tensor, found["inputs"])), tuple(map(_tensor, found["outputs"])))


def seconds_to_load(path: Path) -> float:
    """The longest that an ONNX file, with what is beside it, may take to load."""
    size = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
    return SECONDS + size / _BYTES_A_SECOND


def describe(tensors: tuple[Tensor, ...]) -> str:
    """Tensors for a message: `label int64[N], probabilities float32[N, 3]`."""
    return ", ".join(f"{one.name} {one.element}[{', '.join(_size(one.shape))}]" for one in tensors) or "none"


def _size(shape: tuple[int | None, ...]) -> list[str]:
    return [("?" if place else "N") if size is None else str(size) for place, size in enumerate(shape)]


def _answer(output: bytes) -> dict[str, Any] | None:
    """The last line of a trial; None where it did not come so far."""
    lines = output.splitlines()
    try:
        found: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        return None
    return found


def _tensor(found: list[Any]) -> Tensor:
    name, kind, sizes = found
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in sizes)
    return Tensor(name, _element(kind), shape)


def _element(kind: str) -> str:
    """A numpy dtype name, `string` or `map`; anything else stays as ONNX Runtime calls it and is never bound."""
    tensor = re.fullmatch(r"tensor\((\w+)\)", kind)
    if tensor:
        return _ELEMENTS.get(tensor[1], tensor[1])
    return "map" if kind.startswith("seq(map(") else kind


def _one_line(error: str, path: Path) -> str:
    text = error.replace(str(path), path.name).replace(f"{path.parent}/", "")
    return " ".join(text.split())
