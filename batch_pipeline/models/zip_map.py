"""Takes the ZipMap nodes out of an ONNX file: each makes a map of every row's scores, which costs more than the scores.

Whatever is not as scikit-learn's converter writes it stays as it is. The numbers are those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from batch_pipeline.models.protobuf import Field, Message, Unreadable, field

LARGEST = 256 * 2**20
"""Bytes of a file that is read; it is in memory up to three times while it loads."""
_MOST_FIELDS = 2**20
_GRAPH, _FUNCTIONS = 7, 25  # of ModelProto
_NODE, _OUTPUT = 1, 12  # of GraphProto
_INPUTS, _OUTPUTS, _NAME, _OPERATOR, _ATTRIBUTE, _DOC, _DOMAIN = range(1, 8)  # of NodeProto
_NODE_METADATA = 9
_ATTRIBUTE_NAME, _INTS, _STRINGS, _ATTRIBUTE_DOC, _TYPE = 1, 8, 9, 13, 20  # of AttributeProto
_LABELS = {"classlabels_int64s": (_INTS, 7), "classlabels_strings": (_STRINGS, 8)}
"""By the attribute's name: the field with its values, and its type."""
_VALUE_NAME = 1  # of ValueInfoProto


@dataclass(frozen=True)
class ZipMap:
    """`keys` are in the order of the maps; `columns` says which column of the scores, [N, K], each is for."""

    output: str
    scores: str
    """The tensor that it made maps of."""
    keys: tuple[str, ...]
    columns: tuple[int, ...]


def without_zip_maps(model: bytes, outputs: Collection[str]) -> tuple[bytes, tuple[ZipMap, ...]]:
    """The model with the scores of the ZipMaps that make these outputs in their place, and what they were.

    With none where there is none, or where the file is not read here: what it is worth, ONNX Runtime says.
    """
    # External data is looked for beside the file, which bytes do not have; without this word there is none.
    if b"ZipMap" not in model or b"location" in model:
        return model, ()
    try:
        return _without(Message(model, _MOST_FIELDS), outputs)
    except Unreadable:
        return model, ()


def _without(model: Message, outputs: Collection[str]) -> tuple[bytes, tuple[ZipMap, ...]]:
    top = list(model.fields())
    if any(one.number == _FUNCTIONS for one in top):
        return model.data, ()  # one may be called ZipMap
    # Where a message is there more than once, it is all of them one after the other.
    graph = [one for part in top if part.number == _GRAPH for one in model.fields(part)]
    values = [(one, _only_text(model, one, _VALUE_NAME)) for one in graph if one.number == _OUTPUT]
    names = [name for _, name in values]
    found: dict[int, ZipMap] = {}
    for node in graph:
        zip_map = _zip_map(model, node) if node.number == _NODE else None
        if zip_map is not None and zip_map.output in outputs and names.count(zip_map.output) == 1:
            found[node.start] = zip_map
    taken = {one.output for one in found.values()}
    if not found or len(taken) < len(found) or any(one.scores in taken for one in found.values()):
        return model.data, ()
    dropped = found.keys() | {value.start for value, name in values if name in taken}
    kept = [model.data[one.start : one.end] for one in graph if one.start not in dropped]
    added = dict.fromkeys(one.scores for one in found.values() if one.scores not in names)
    kept += [field(_OUTPUT, field(_VALUE_NAME, name.encode())) for name in added]
    rest = [model.data[one.start : one.end] for one in top if one.number != _GRAPH]
    return b"".join([*rest, field(_GRAPH, b"".join(kept))]), tuple(found.values())


def _zip_map(model: Message, node: Field) -> ZipMap | None:
    """None for another node, and for one that is not as it should be."""
    if not model.holds(node, b"ZipMap"):
        return None
    parts: dict[int, list[Field]] = {}
    for one in model.fields(node):
        parts.setdefault(one.number, []).append(one)
    single = (_INPUTS, _OUTPUTS, _OPERATOR, _ATTRIBUTE, _DOMAIN)
    if any(len(parts.get(number, ())) != 1 for number in single):
        return None
    if parts.keys() - {*single, _NAME, _DOC, _NODE_METADATA}:
        return None
    scores, output, operator, domain = (model.text(parts[one][0]) for one in (_INPUTS, _OUTPUTS, _OPERATOR, _DOMAIN))
    if (operator, domain) != ("ZipMap", "ai.onnx.ml") or not scores or not output:
        return None
    labels = _labels(model, parts[_ATTRIBUTE][0])
    if not labels or len(set(labels)) < len(labels):
        return None
    columns = tuple(sorted(range(len(labels)), key=lambda place: labels[place]))
    return ZipMap(output, scores, tuple(str(labels[place]) for place in columns), columns)


def _labels(model: Message, attribute: Field) -> list[int] | list[str]:
    """The labels of the classes, one a column; none where they are not said in the usual way."""
    name = _only_text(model, attribute, _ATTRIBUTE_NAME)
    values, kind = _LABELS.get(name, (0, 0))
    integers: list[int] = []
    texts: list[str] = []
    kinds: list[int] = []
    for one in model.fields(attribute):
        if one.number == _TYPE:
            kinds += model.integers(one)
        elif one.number == values == _INTS:
            integers += model.integers(one)
        elif one.number == values == _STRINGS:
            texts.append(model.text(one))
        elif one.number not in (_ATTRIBUTE_NAME, _ATTRIBUTE_DOC):
            return []
    return (integers or texts) if kinds == [kind] else []


def _only_text(model: Message, within: Field, number: int) -> str:
    """The text of the one field of that number. Raises Unreadable where there is none, or another beside it."""
    texts = [model.text(one) for one in model.fields(within) if one.number == number]
    if len(texts) != 1:
        raise Unreadable("a name is missing, or there are two")
    return texts[0]
