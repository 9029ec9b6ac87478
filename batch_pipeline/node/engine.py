"""Runs a model on arrays. What the arrays mean is nobody's business here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from batch_pipeline.errors import NodeFailed

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

Outputs = dict[str, Any]
"""By output name: an array, or a list with a dict (a ZipMap) or an array of its own size for each row."""

INSTALL = {
    "CUDAExecutionProvider": "onnxruntime-gpu in place of onnxruntime, and the CUDA and cuDNN libraries it names",
    "TensorrtExecutionProvider": "onnxruntime-gpu in place of onnxruntime, and TensorRT",
}


class BatchFailed(Exception):
    """The model refused these inputs. Some of their rows, or the batch as such, are to blame."""


class Engine(Protocol):
    """A loaded model. `run` is called from one thread at a time."""

    def run(self, inputs: Mapping[str, Array]) -> Outputs:
        """The outputs for one batch. Raises BatchFailed."""
        ...


class OnnxEngine:
    """A model in ONNX Runtime, on the providers it was asked to run on and no others."""

    def __init__(self, path: Path, *, threads: int, providers: Sequence[str], outputs: Sequence[str]) -> None:
        """Raises NodeFailed where the file does not load or a provider is not there."""
        from batch_pipeline.onnx_runtime import ERRORS
        from batch_pipeline.onnx_runtime import onnxruntime as ort

        _check_available(providers, ort.get_available_providers())
        options = ort.SessionOptions()
        options.intra_op_num_threads = max(1, threads)
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what is raised would be printed too, once for every row that fails
        self._refusals = ERRORS
        try:
            self._session = ort.InferenceSession(str(path), options, providers=list(providers))
        except self._refusals as error:
            raise NodeFailed(f"the model {path.name} does not load: {one_line(error)}") from error
        _check_used(providers, self._session.get_providers())
        self._session.disable_fallback()
        self._outputs = list(dict.fromkeys(outputs))

    def run(self, inputs: Mapping[str, Array]) -> Outputs:
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except self._refusals as error:
            raise BatchFailed(one_line(error)) from error
        return dict(zip(self._outputs, values, strict=True))


def _check_available(wanted: Sequence[str], available: Sequence[str]) -> None:
    for provider in wanted:
        if provider not in available:
            raise NodeFailed(_missing(provider, available, "is not available"))


def _check_used(wanted: Sequence[str], used: Sequence[str]) -> None:
    for provider in wanted:
        if provider not in used:
            raise NodeFailed(_missing(provider, used, "could not start"))


def _missing(provider: str, there: Sequence[str], what: str) -> str:
    hint = f"; it needs {INSTALL[provider]}" if provider in INSTALL else ""
    return f"the execution provider {provider} {what} on this node (there are: {', '.join(there) or 'none'}){hint}"


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
