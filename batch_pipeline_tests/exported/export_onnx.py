"""Makes the models that take a file's bytes, from ONNX operators alone.

Run with the project's test extra: `python batch_pipeline_tests/exported/export_onnx.py`.
"""

from pathlib import Path

from onnx import NodeProto, TensorProto, ValueInfoProto, checker, helper, save

HERE = Path(__file__).parent


def write(name: str, nodes: list[NodeProto], inputs: list[ValueInfoProto], outputs: list[ValueInfoProto]) -> None:
    graph = helper.make_graph(nodes, name, inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    checker.check_model(model, full_check=True)
    save(model, HERE / f"{name}.onnx")


if __name__ == "__main__":
    # uint8 [length] -> the mean and the largest of the bytes, float32 [1] each
    write(
        "file_bytes",
        [
            helper.make_node("Cast", ["data"], ["values"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["values"], ["mean"], keepdims=1),
            helper.make_node("ReduceMax", ["values"], ["largest"], keepdims=1),
        ],
        [helper.make_tensor_value_info("data", TensorProto.UINT8, ["length"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("mean", "largest")],
    )
    # string [N] -> the same text, and the text with an exclamation mark
    write(
        "file_text",
        [
            helper.make_node("Identity", ["text"], ["same"]),
            helper.make_node("Constant", [], ["mark"], value=helper.make_tensor("", TensorProto.STRING, [1], [b"!"])),
            helper.make_node("StringConcat", ["text", "mark"], ["loud"]),
        ],
        [helper.make_tensor_value_info("text", TensorProto.STRING, ["N"])],
        [helper.make_tensor_value_info(name, TensorProto.STRING, ["N"]) for name in ("same", "loud")],
    )
