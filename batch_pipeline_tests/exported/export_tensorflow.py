"""Makes the models of TensorFlow here, with what TensorFlow itself answers (`*.json`).

Run where tensorflow and tf2onnx are installed (they are no dependency of the project).
"""

import json
from pathlib import Path

import tensorflow as tf
import tf2onnx

HERE = Path(__file__).parent


def image_classifier() -> None:
    """A Keras image classifier: [N, 8, 8, 3] to probabilities [N, 3]."""
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="images")])
    def classify(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": model(images)}

    converted, _ = tf2onnx.convert.from_function(classify, input_signature=classify.input_signature, opset=17)
    (HERE / "images_nhwc.onnx").write_bytes(converted.SerializeToString())
    images = tf.random.uniform([2, 8, 8, 3])
    document = {
        "inputs": {"images": images.numpy().tolist()},
        "answers": {"probabilities": model(images).numpy().tolist()},
    }
    (HERE / "images_nhwc.json").write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    tf.random.set_seed(0)
    image_classifier()
