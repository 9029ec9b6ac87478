"""Model packages for tests: folders with a config.json and a model that a real tool exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

EXPORTED = Path(__file__).parents[1] / "exported"
FILE_REQUEST = {
    "Content-type": "multipart/form-data",
    "data": {"type": "object", "properties": {"images": {"type": "file"}}},
}


def schema(*names: str, kind: str = "number", **others: str) -> dict[str, Any]:
    """An object of basic values: `names` all of one type, `others` each of its own."""
    kinds = dict.fromkeys(names, kind) | others
    return {"type": "object", "properties": {name: {"type": one} for name, one in kinds.items()}}


def api(request: Any = None, response: Any = None, **keys: Any) -> dict[str, Any]:
    """One entry of `apis` with these schemas."""
    bodies = {"request": {"data": request}, "response": {"data": response}}
    return {key: body for key, body in bodies.items() if body["data"] is not None} | keys


def config(*apis: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A whole config.json."""
    return {"model_algorithm": "any", "model_type": "ONNX", "apis": list(apis or [api()])} | keys


def write(folder: Path, model: str | None, content: Any, **files: str) -> Path:
    """A package in `folder`: an exported model, config.json, and other files (`labels_txt` for labels.txt)."""
    folder.mkdir(parents=True, exist_ok=True)
    if model is not None:
        shutil.copy(EXPORTED / f"{model}.onnx", folder / "model.onnx")
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    (folder / "config.json").write_text(text)
    for name, file in files.items():
        stem, _, suffix = name.rpartition("_")
        (folder / f"{stem}.{suffix}").write_text(file)
    return folder
