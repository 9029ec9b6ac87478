"""Whether a package on the local disk is fit for use: everything that is wrong with it, and what it holds."""

from __future__ import annotations

import posixpath
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from batch_pipeline.errors import ModelRefused, shortened
from batch_pipeline.models import labels as label_rules
from batch_pipeline.models import preprocessing
from batch_pipeline.models.binder import try_to_bind
from batch_pipeline.models.json_files import read_file
from batch_pipeline.models.onnx_model import OnnxModel, inspect
from batch_pipeline.models.package import CONFIG_FILE, PackageConfig, read_apis, read_config

_LONGEST_REASON = 500
_MOST_REASONS = 100
"""After so many no further API is looked at."""


@dataclass(frozen=True)
class Inspection:
    """What a package holds. No reasons: it is normal."""

    config: PackageConfig | None
    onnx: OnnxModel | None
    labels: tuple[str, ...] | None
    reasons: tuple[str, ...]


def inspect_package(folder: Path) -> Inspection:
    """Judges a package: it is complete, the ONNX file loads, every API's request and response bind.

    Raises nothing for what is wrong with the package: every reason found is in the answer. An OSError is the disk's.
    """
    reasons: list[str] = []
    config = _config(folder, reasons)
    onnx = _onnx(folder, (config or PackageConfig()).onnx.model_file, reasons)
    labels = None
    try:
        labels = label_rules.find(folder, config or PackageConfig())
    except ModelRefused as error:
        reasons.append(error.message)
    try:
        preprocessing.load(folder)
    except ModelRefused as error:
        reasons.append(error.message)
    if config is not None:
        apis, problems = read_apis(config)
        reasons.extend(f"{CONFIG_FILE}: {problem}" for problem in problems)
    if config is not None and onnx is not None:
        for api in apis:
            if len(reasons) >= _MOST_REASONS:
                reasons.append("there may be more that is wrong with its other APIs")
                break
            _, problems = try_to_bind(config, api, onnx, labels)
            reasons.extend(_shortened(f"API {api.url}: {problem}") for problem in problems)
    return Inspection(config, onnx, labels, tuple(dict.fromkeys(_shortened(reason) for reason in reasons)))


def _config(folder: Path, reasons: list[str]) -> PackageConfig | None:
    file = folder / CONFIG_FILE
    if not file.is_file():
        reasons.append(f"{CONFIG_FILE} is missing (the package may still be being uploaded)")
        return None
    try:
        config, problems = read_config(read_file(file))
    except ModelRefused as error:
        reasons.append(error.message)
        return None
    reasons.extend(f"{CONFIG_FILE}: {one}" if not one.startswith(CONFIG_FILE) else one for one in problems)
    return config


def _onnx(folder: Path, model_file: str, reasons: list[str]) -> OnnxModel | None:
    # No path that leads to a file, but its name: it is looked up among the files of the package, here and elsewhere.
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    if model_file not in names or not (folder / model_file).resolve().is_relative_to(folder.resolve()):
        reasons.append(_missing(model_file, names))
        return None
    try:
        return inspect(folder / model_file)
    except ModelRefused as error:
        reasons.append(error.message)
        return None


def _missing(model_file: str, names: Collection[str]) -> str:
    usual = posixpath.normpath(model_file)
    if usual in names and usual != model_file:
        return f"{CONFIG_FILE}: onnx.model_file: {model_file!r} must be spelt as the file is named: {usual!r}"
    shown = model_file if model_file and model_file.isprintable() else repr(model_file)
    return f"{shown} is missing (the ONNX file; onnx.model_file in {CONFIG_FILE} names another)"


def _shortened(reason: str) -> str:
    """A reason repeats what it was given, which may be of any length."""
    return shortened(reason, _LONGEST_REASON)
