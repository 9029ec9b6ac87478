"""One file of a file API: its bytes or image through the engine to the one line of its result."""

from __future__ import annotations

import json
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from batch_pipeline.errors import InputFailed
from batch_pipeline.models.binding import Binding
from batch_pipeline.models.preprocessing import ImagePreprocessing
from batch_pipeline.node.answers import answer_texts
from batch_pipeline.node.batching import Answered, BatchingEngine
from batch_pipeline.node.images import file_tensor
from batch_pipeline.node.sample import Sample
from batch_pipeline.node.time_limit import TimeLimit

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class FileWork:
    """What turns files of one job into answers. Thread-safe."""

    binding: Binding
    steps: ImagePreprocessing
    engine: BatchingEngine
    decoders: Executor | None
    """None: the engine's own threads decode."""
    sample: Sample
    limit: TimeLimit

    def line(self, data: bytes) -> bytes:
        """The answer to one file as a line. Raises InputFailed."""
        answered = self._submit(data).result()
        if answered.failed:
            raise InputFailed(answered.failed[0].code, answered.failed[0].message)
        text = answer_texts(self.binding, answered.outputs, 1)[0]
        if self.sample.wanted:
            self.sample.add({"answer": json.loads(text)})
        return text.encode() + b"\n"

    def _submit(self, data: bytes) -> Future[Answered]:
        make = partial(self._inputs, data)
        if self.decoders is None:
            return self.engine.submit_unmade(make, 1)
        return self.engine.submit(self.decoders.submit(make).result(), 1)

    def _inputs(self, data: bytes) -> dict[str, Array]:
        source = self.binding.file
        assert source is not None  # a binding of kind `file` has one
        return {source.tensor.name: file_tensor(data, source, self.steps, self._watched)}

    def _watched(self) -> AbstractContextManager[None]:
        return self.limit.watching("the decoding of the image")
