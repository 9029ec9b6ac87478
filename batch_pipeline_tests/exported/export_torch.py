"""Makes the models of PyTorch here, with what PyTorch itself answers (`*.json`).

Run where torch and onnxscript are installed (they are no dependency of the project).
"""

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

HERE = Path(__file__).parent


class TwoTowers(nn.Module):
    """Two inputs of different types, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(10, 4)
        self.mix = nn.Linear(5, 3)

    def forward(self, item: Tensor, price: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.mix(torch.cat([self.items(item), price], dim=1)).softmax(dim=1)
        return scores, scores.argmax(dim=1)


class Classifier(nn.Module):
    """A convolutional image classifier: [N, 3, 8, 8] to logits [N, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.layers(pixel_values)


class Dense(nn.Module):
    """[N, 4] to [N, 2], with weights large enough to be kept beside the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 300), nn.ReLU(), nn.Linear(300, 2))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


def export(name: str, model: nn.Module, inputs: dict[str, Tensor], outputs: list[str], **options: object) -> None:
    model.eval()
    program = torch.onnx.export(
        model, kwargs=inputs, input_names=list(inputs), output_names=outputs, dynamo=True, optimize=True, **options
    )
    for node in program.model.graph:
        node.metadata_props.clear()  # stack traces, with the paths of the machine they were made on
    (HERE / name).parent.mkdir(exist_ok=True)
    program.save(HERE / f"{name}.onnx", external_data=name.startswith("external_data/"))
    with torch.no_grad():
        answers = model(**inputs)
    answers = answers if isinstance(answers, tuple) else (answers,)
    document = {
        "inputs": {key: value.tolist() for key, value in inputs.items()},
        "answers": {key: value.tolist() for key, value in zip(outputs, answers, strict=True)},
    }
    (HERE / f"{name}.json").write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    torch.manual_seed(0)
    free = Dim("batch", min=1, max=4096)
    towers, classifier, images = TwoTowers(), Classifier(), torch.rand(2, 3, 8, 8)
    pair = {"item": torch.tensor([1, 2, 3]), "price": torch.rand(3, 1)}
    shapes = {"item": {0: free}, "price": {0: free}}
    export("two_inputs", towers, pair, ["scores", "best"], dynamic_shapes=shapes)
    export("images_nchw", classifier, {"pixel_values": images}, ["logits"], dynamic_shapes={"pixel_values": {0: free}})
    export("images_nchw_batch_1", classifier, {"pixel_values": images[:1]}, ["logits"])
    dense, features = Dense(), {"features": torch.rand(3, 4)}
    export("external_data/model", dense, features, ["output"], dynamic_shapes={"features": {0: free}})
