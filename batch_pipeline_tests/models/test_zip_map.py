"""A model without its ZipMaps is the one that onnx itself would make; what is not understood stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, NodeProto, TensorProto, ValueInfoProto, helper

from batch_pipeline.models import zip_map
from batch_pipeline.models.zip_map import ZipMap, without_zip_maps
from batch_pipeline_tests.faults.fuzzing import damaged, ends, examples

EXPORTED = Path(__file__).parents[1] / "exported"
IRIS = (EXPORTED / "logistic_zipmap.onnx").read_bytes()


def zipmap(scores: str = "scores", output: str = "maps", *, domain: str = "ai.onnx.ml", **labels: Any) -> NodeProto:
    return helper.make_node("ZipMap", [scores], [output], domain=domain, **labels)


def model(*nodes: NodeProto, outputs: tuple[str, ...] = ("maps",), **more: Any) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in ("x", *outputs)]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["scores"]), *nodes], "g", values[:1], values[1:])
    return helper.make_model(graph, **more)


def taken_out(content: bytes, outputs: tuple[str, ...]) -> tuple[ZipMap, ...]:
    """The ZipMaps that are found. They are what onnx reads, and what is left is what onnx leaves."""
    left, found = without_zip_maps(content, outputs)
    if not found:
        assert left == content
        return ()
    try:
        whole = onnx.ModelProto.FromString(content)
    except DecodeError:
        return ()  # ONNX Runtime refuses it, with them and without
    made_by = [name for node in whole.graph.node for name in node.output]
    if any(made_by.count(one.output) > 1 for one in found):
        return ()  # the same
    made = onnx.ModelProto.FromString(left)
    gone = {one.output: one for one in found}
    assert gone.keys() <= set(outputs)
    for node in [node for node in whole.graph.node if node.op_type == "ZipMap" and gone.keys() & set(node.output)]:
        said = gone[node.output[0]]
        (labels,) = (list(one.ints) or [text.decode() for text in one.strings] for one in node.attribute)
        assert (node.op_type, node.domain, list(node.input)) == ("ZipMap", "ai.onnx.ml", [said.scores])
        assert [labels[column] for column in said.columns] == sorted(set(labels))
        assert said.keys == tuple(str(label) for label in sorted(labels))
        whole.graph.node.remove(node)
    for value in [value for value in whole.graph.output if value.name in gone]:
        whole.graph.output.remove(value)
    there = {value.name for value in whole.graph.output}
    scores = dict.fromkeys(one.scores for one in found)
    whole.graph.output.extend(ValueInfoProto(name=name) for name in scores if name not in there)
    assert made == whole
    return found


@pytest.mark.parametrize(
    ("labels", "keys", "columns"),
    [
        (["a", "b"], ("a", "b"), (0, 1)),
        (["b", "é", "B", "", "\U0001f600", "\uffff"], ("", "B", "b", "é", "\uffff", "\U0001f600"), (3, 2, 0, 1, 5, 4)),
        ([10, 9, -1, 2**62, -(2**63)], (str(-(2**63)), "-1", "9", "10", str(2**62)), (4, 2, 1, 0, 3)),
        ([7], ("7",), (0,)),
    ],
)
def test_the_labels_of_a_zipmap(labels: list[Any], keys: tuple[str, ...], columns: tuple[int, ...]) -> None:
    """In the order of their bytes, as in a map of C++."""
    kind = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_int64s"
    found = taken_out(model(zipmap(**{kind: labels})).SerializeToString(), ("maps",))
    assert found == (ZipMap("maps", "scores", keys, columns),)


def test_the_zipmap_of_an_exported_model() -> None:
    (found,) = taken_out(IRIS, ("output_label", "output_probability"))
    assert (found.output, found.keys) == ("output_probability", ("setosa", "versicolor", "virginica"))


def test_several_zipmaps_and_scores_that_the_model_gives_besides() -> None:
    nodes = [zipmap(output=name, classlabels_int64s=[0, 1]) for name in ("maps", "more", "unasked")]
    content = model(*nodes, outputs=("maps", "scores", "more", "unasked")).SerializeToString()
    assert [one.output for one in taken_out(content, ("maps", "more"))] == ["maps", "more"]


def test_a_graph_in_several_pieces_is_all_of_them() -> None:
    """As protobuf has it: messages of the same field are merged."""
    whole = model(zipmap(classlabels_int64s=[0, 1]))
    head, tail = onnx.ModelProto(), onnx.ModelProto()
    head.CopyFrom(whole)
    tail.graph.node.append(head.graph.node.pop())
    content = head.SerializeToString() + tail.SerializeToString()
    assert onnx.ModelProto.FromString(content) == whole
    assert len(taken_out(content, ("maps",))) == 1


def test_labels_side_by_side_without_being_packed_or_packed() -> None:
    """Both are int64s, whichever the attribute was written as."""
    whole = model(zipmap(classlabels_int64s=[3, -5])).SerializeToString()
    one_by_one = b"\x40\x03\x40" + b"\xfb" + b"\xff" * 8 + b"\x01"
    packed = b"\x42\x0b\x03" + b"\xfb" + b"\xff" * 8 + b"\x01"
    assert one_by_one in whole
    # The lengths of what is around it change: the attribute's, node's and graph's are given one byte less.
    node = zipmap(classlabels_int64s=[3, -5])
    attribute = node.attribute[0].SerializeToString().replace(one_by_one, packed)
    assert list(AttributeProto.FromString(attribute).ints) == [3, -5]
    del node.attribute[:]
    bare = model().SerializeToString()
    content = node.SerializeToString() + b"\x2a" + bytes([len(attribute)]) + attribute
    graph = b"\x0a" + bytes([len(content)]) + content
    (found,) = taken_out(bare + b"\x3a" + bytes([len(graph)]) + graph, ("maps",))
    assert found.keys == ("-5", "3")


def other(node: NodeProto, **more: Any) -> NodeProto:
    node.MergeFrom(NodeProto(**more))
    return node


LABELS = {"classlabels_int64s": [0, 1]}
LEFT = {
    "no labels": model(zipmap()),
    "labels of both kinds": model(zipmap(**LABELS, classlabels_strings=["a", "b"])),
    "a label twice": model(zipmap(classlabels_int64s=[1, 1])),
    "labels that are no UTF-8": model(zipmap(classlabels_strings=[b"\xff", b"a"])),
    "labels of another type": model(zipmap(classlabels_int64s=[1.5, 2.5])),
    "another domain": model(zipmap(domain="mine", **LABELS)),
    "an unknown attribute": model(zipmap(**LABELS, more=1)),
    "two inputs": model(other(zipmap(**LABELS), input=["x"])),
    "two outputs": model(other(zipmap(**LABELS), output=["y"])),
    "an overload": model(other(zipmap(**LABELS), overload="mine")),
    "nobody asks for it": model(zipmap(output="unasked", **LABELS)),
    "the scores of another": model(zipmap(**LABELS), zipmap("maps", "more", **LABELS), outputs=("maps", "more")),
    "one name for two": model(zipmap(**LABELS), zipmap("x", **LABELS)),
    "no output of the graph": model(zipmap(**LABELS), outputs=("scores",)),
    "an output of the graph twice": model(zipmap(**LABELS), outputs=("maps", "maps")),
    "a function": model(
        zipmap(**LABELS),
        functions=[helper.make_function("ai.onnx.ml", "ZipMap", ["a"], ["b"], [], [helper.make_opsetid("", 17)])],
    ),
    "external data, it may be": model(zipmap(classlabels_strings=["location", "a"])),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_as_it_is(name: str) -> None:
    content = LEFT[name].SerializeToString()
    assert without_zip_maps(content, ("maps", "more")) == (content, ())


def test_a_reader_that_stops_after_so_many_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_map, "_MOST_FIELDS", 10_000)
    assert len(taken_out(IRIS, ("output_probability",))) == 1
    for content in (b"\x08\x00" * 10_000, b"\x3a\xc2\x9c\x01" + b"\x08\x00" * 10_001):
        assert without_zip_maps(IRIS + content, ("output_probability",)) == (IRIS + content, ())
    many = model(zipmap(classlabels_int64s=range(10_000))).SerializeToString()
    assert without_zip_maps(many, ("maps",)) == (many, ())


NAMES = st.sampled_from(["x", "scores", "maps", "more"])
ZIPMAPS = st.builds(
    lambda scores, output, labels: zipmap(scores, output, **labels),
    NAMES,
    NAMES,
    st.fixed_dictionaries(
        {},
        optional={
            "classlabels_int64s": st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4),
            "classlabels_strings": st.lists(st.text(max_size=4), min_size=1, max_size=4),
        },
    ),
)
MODELS = st.builds(
    lambda nodes, outputs: model(*nodes, outputs=tuple(outputs)),
    st.lists(ZIPMAPS, max_size=3),
    st.lists(NAMES, max_size=3),
)
ASKED = st.lists(NAMES, max_size=2).map(tuple)


@examples(200)
@given(MODELS, ASKED)
def test_whatever_model(made: onnx.ModelProto, asked: tuple[str, ...]) -> None:
    taken_out(made.SerializeToString(), asked)


@examples(200)
@given(damaged([IRIS, *(one.SerializeToString() for one in LEFT.values())]) | st.binary().map(b"ZipMap".__add__))
def test_whatever_bytes(content: bytes) -> None:
    with ends(5):
        taken_out(content, ("maps", "output_probability"))


@examples(500)
@given(st.data())
def test_single_bytes_of_a_zipmap(data: st.DataObject) -> None:
    """Where most of the bytes say how long something is, and what."""
    content = bytearray(model(zipmap(classlabels_strings=["b", "a"])).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    taken_out(bytes(content), ("maps",))
