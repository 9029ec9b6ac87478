"""Binds one API of a package to its ONNX graph: the rules of request and response together."""

from __future__ import annotations

from batch_pipeline.errors import ModelRefused
from batch_pipeline.models import labels as label_rules
from batch_pipeline.models import request_binding, response_binding
from batch_pipeline.models.binding import Binding, ColumnsInput, Leaf, ResponseLeaf
from batch_pipeline.models.mapping import ColumnMapping
from batch_pipeline.models.onnx_model import OnnxModel
from batch_pipeline.models.package import Api, PackageConfig
from batch_pipeline.models.schema import json_path


def bind(config: PackageConfig, api: Api, onnx: OnnxModel, labels: tuple[str, ...] | None) -> Binding:
    """One API of a package bound to its ONNX graph. Raises ModelRefused with everything that does not fit."""
    binding, problems = try_to_bind(config, api, onnx, labels)
    if binding is None:
        raise ModelRefused("; ".join(problems))
    return binding


def try_to_bind(
    config: PackageConfig, api: Api, onnx: OnnxModel, labels: tuple[str, ...] | None
) -> tuple[Binding | None, list[str]]:
    """The binding and no problems, or None and everything that does not fit."""
    # The rules are made of this module's types.

    problems: list[str] = []
    leaves: tuple[Leaf, ...] = ()
    columns: tuple[ColumnsInput, ...] = ()
    response: tuple[ResponseLeaf, ...] = ()
    file = request_binding.bind_file(onnx, problems) if api.kind == "file" else None
    batch = request_binding.fixed_batch(onnx, file, problems)
    outputs = response_binding.with_batch(onnx.outputs, batch)
    try:
        if api.kind == "json":
            leaves, columns = request_binding.bind_columns(api, onnx, problems)
    except ModelRefused as error:
        problems.append(f"request: {error}")
    try:
        labels = labels if api.labels is None else label_rules.parse(api.labels, "labels")
    except ModelRefused as error:
        problems.append(error.message)
    try:
        if config.classifies_images:
            response = response_binding.bind_scores(api, outputs, labels, problems)
        else:
            response = response_binding.bind_response(api, outputs, problems)
    except ModelRefused as error:
        problems.append(f"response: {error}")
    batch = batch or response_binding.one_row_a_run(response, outputs)
    if problems:
        return None, problems
    return Binding(api.kind, leaves, columns, file, batch, response, config.classifies_images, labels), []


def check_mapping(binding: Binding, mapping: ColumnMapping) -> None:
    """Raises ModelRefused, naming every leaf that the model needs and the mapping leaves out."""

    mapped = {leaf.path for leaf in mapping.leaves}
    needed = sorted({place for column in binding.columns for place in column.leaves})
    missing = [json_path(binding.leaves[place].path) for place in needed if binding.leaves[place].path not in mapped]
    if missing:
        raise ModelRefused(f"mapping: the model needs {', '.join(missing)}; give each an index of 0 or more")
