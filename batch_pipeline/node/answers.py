"""ONNX outputs to the JSON of the responses, one text a row, as the binding says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from batch_pipeline.errors import NodeFailed
from batch_pipeline.models.binding import Binding, Path, ResponseLeaf
from batch_pipeline.models.schema import json_path
from batch_pipeline.node.classes import classified
from batch_pipeline.node.engine import Outputs
from batch_pipeline.node.leaf_texts import Texts, joined, map_texts, texts_of


def answer_texts(binding: Binding, outputs: Outputs, rows: int) -> Texts:
    """The response of every row as a line of JSON. NaN and infinities are null; nothing else is lost."""
    if rows == 0:
        return []
    if binding.classification:
        return classified(outputs[binding.response[0].output], binding.labels)
    leaves = [_leaf_texts(leaf, outputs) for leaf in binding.response]
    pieces = [leaves[piece] if isinstance(piece, int) else piece for piece in _template(binding.response)]
    return joined(pieces, rows)


def _leaf_texts(leaf: ResponseLeaf, outputs: Outputs) -> Texts:
    value = outputs[leaf.output]
    if not isinstance(value, list):
        if leaf.keys is not None:
            return map_texts(leaf.keys, value)
        if leaf.form == "scalar":
            value = value.reshape(len(value), -1)
            if value.shape[1:] != (1,):
                what = f"the model's output {leaf.output!r} has {value.shape[1]} values a row"
                raise NodeFailed(f"{what}, where the response has one value, {json_path(leaf.path)}")
            value = value[:, 0]
        elif leaf.form == "any" and value.ndim == 2 and value.shape[1] == 1:
            value = value[:, 0]
    return texts_of(value, leaf.type)


@lru_cache(16)
def _template(response: tuple[ResponseLeaf, ...]) -> Sequence[str | int]:
    """The text of a response, with the number of a leaf wherever its value goes."""
    tree: Any = None
    for number, leaf in enumerate(response):
        tree = _put(tree, leaf.path, number)
    pieces: list[str | int] = []
    _write({} if tree is None else tree, pieces)
    return _merged(pieces)


def _put(tree: Any, path: Path, number: int) -> Any:
    if not path:
        return number
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        return [_put(tree[0] if tree else None, rest, number)]
    tree = {} if tree is None else tree
    tree[step] = _put(tree.get(step), rest, number)
    return tree


def _write(tree: Any, pieces: list[str | int]) -> None:
    if isinstance(tree, int):
        pieces.append(tree)
    elif isinstance(tree, list):
        pieces.append("[")
        _write(tree[0], pieces)
        pieces.append("]")
    else:
        for position, (name, child) in enumerate(tree.items()):
            pieces.append(("," if position else "{") + json.dumps(name, ensure_ascii=False) + ":")
            _write(child, pieces)
        pieces.append("}" if tree else "{}")


def _merged(pieces: list[str | int]) -> list[str | int]:
    merged: list[str | int] = []
    for piece in pieces:
        if merged and isinstance(piece, str) and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def is_object(binding: Binding) -> bool:
    """Whether every answer is a JSON object that has room for `input` beside what it says."""
    if binding.classification or not binding.response:
        return True
    return all(leaf.path and isinstance(leaf.path[0], str) and leaf.path[0] != "input" for leaf in binding.response)
