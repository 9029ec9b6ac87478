"""The names of a model's classes: `onnx.labels`, labels.txt or `id2label`, the first that a package has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batch_pipeline.errors import ModelRefused
from batch_pipeline.models import preprocessing
from batch_pipeline.models.json_files import read_file, read_json
from batch_pipeline.models.package import PackageConfig

LABELS_FILE = "labels.txt"
_ID2LABEL_FILE = "id2label.json"


def find(folder: Path, config: PackageConfig) -> tuple[str, ...] | None:
    """The labels of a package on the local disk, None where it names none. Raises ModelRefused."""
    if config.onnx.labels is not None:
        return parse(config.onnx.labels, "onnx.labels")
    if (folder / LABELS_FILE).is_file():
        return _lines(read_file(folder / LABELS_FILE))
    images = preprocessing.read(folder) or {}
    places: tuple[tuple[str, Any], ...] = (
        ("id2label", (config.model_extra or {}).get("id2label")),
        ("onnx.id2label", (config.onnx.model_extra or {}).get("id2label")),
        (f"{preprocessing.FILE_NAME}: id2label", images.get("id2label")),
        (_ID2LABEL_FILE, _id2label_file(folder / _ID2LABEL_FILE)),
    )
    return next((parse(value, where) for where, value in places if value is not None), None)


def parse(value: object, where: str) -> tuple[str, ...]:
    """Labels from a list of texts, or from an object whose keys are 0, 1, 2, … . Raises ModelRefused naming `where`."""
    if isinstance(value, Mapping):
        numbers = {str(key): label for key, label in value.items()}
        if set(numbers) != {str(index) for index in range(len(numbers))}:
            raise ModelRefused(f"{where}: the keys must be 0 to {len(numbers) - 1}, one label a class")
        value = [numbers[str(index)] for index in range(len(numbers))]
    if not isinstance(value, list) or not value:
        raise ModelRefused(f"{where}: a list with one label a class is expected")
    if any(isinstance(label, bool) or not isinstance(label, (str, int)) for label in value):
        raise ModelRefused(f"{where}: every label must be a text")
    return tuple(str(label) for label in value)


def _lines(content: bytes) -> tuple[str, ...]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelRefused(f"{LABELS_FILE} is not UTF-8: {error}") from error
    # Not str.splitlines: a label may hold any character but a line end.
    labels = tuple(line.rstrip("\r").strip() for line in text.rstrip().split("\n"))
    if not any(labels):
        raise ModelRefused(f"{LABELS_FILE} is empty; one label a line is expected")
    return labels


def _id2label_file(file: Path) -> object:
    if not file.is_file():
        return None
    content = read_json(read_file(file), file.name)
    return content.get("id2label", content) if isinstance(content, dict) else content
