"""One file of a file API: its bytes or image through the engine to the one line of its result."""

from __future__ import annotations

import json
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass

from batch_pipeline.errors import InputFailed
from batch_pipeline.models.binding import Binding
from batch_pipeline.models.preprocessing import ImagePreprocessing
from batch_pipeline.node.answers import answer_texts
from batch_pipeline.node.batching import BatchingEngine
from batch_pipeline.node.images import file_tensor
from batch_pipeline.node.sample import Sample
from batch_pipeline.node.time_limit import TimeLimit


@dataclass(frozen=True)
class FileWork:
    """What turns files of one job into answers. Thread-safe."""

    binding: Binding
    steps: ImagePreprocessing
    engine: BatchingEngine
    decoders: Executor
    sample: Sample
    limit: TimeLimit

    def line(self, data: bytes) -> bytes:
        """The answer to one file as a line. Raises InputFailed."""
        source = self.binding.file
        assert source is not None  # a binding of kind `file` has one
        tensor = self.decoders.submit(file_tensor, data, source, self.steps, self._watched).result()
        answered = self.engine.submit({source.tensor.name: tensor}, 1).result()
        if answered.failed:
            raise InputFailed(answered.failed[0].code, answered.failed[0].message)
        text = answer_texts(self.binding, answered.outputs, 1)[0]
        if self.sample.wanted:
            self.sample.add({"answer": json.loads(text)})
        return text.encode() + b"\n"

    def _watched(self) -> AbstractContextManager[None]:
        return self.limit.watching("the decoding of the image")
