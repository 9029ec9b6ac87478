"""Runs a model on arrays. What the arrays mean is nobody's business here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from batch_pipeline.errors import NodeFailed
from batch_pipeline.node.time_limit import TimeLimit

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

Outputs = dict[str, Any]
"""By output name: an array, or a list with a dict (a ZipMap) or an array of its own size for each row."""

CPU = ("CPUExecutionProvider",)
INSTALL = {
    "CUDAExecutionProvider": "onnxruntime-gpu in place of onnxruntime, and the CUDA and cuDNN libraries it names",
    "TensorrtExecutionProvider": "onnxruntime-gpu in place of onnxruntime, and TensorRT",
}


_NO_MEMORY = ("failed to allocate memory", "bad_alloc", "bad allocation", "out of memory", "memoryallocation")


class BatchFailed(Exception):
    """The model refused these inputs. Some of their rows, or the batch as such, are to blame."""

    code = "inference_failed"
    """Of the row that is to blame."""


class OutOfMemory(BatchFailed):
    """There was no memory for so many rows at once."""


class TimedOut(BatchFailed):
    """The call took too long, and was ended."""

    code = "timed_out"


class Engine(Protocol):
    """A loaded model."""

    @property
    def lanes(self) -> int:
        """How many calls may run side by side, each from a thread of its own."""
        ...

    def run(self, inputs: Mapping[str, Array], part: float = 1.0) -> Outputs:
        """The outputs for one batch, within that part of the time limit.

        Raises BatchFailed: OutOfMemory where fewer rows may do, TimedOut where the call was ended.
        """
        ...

    def stop(self) -> None:
        """Ends the calls that are under way, as soon as that is possible."""
        ...


class OnnxEngine:
    """A model in ONNX Runtime, on the providers it was asked to run on and no others.

    On the CPU a call has one thread, and there are as many calls as threads: none spins in wait for the others, and a
    row's answer does not depend on which rows share its call, as it does where a product is summed by several threads.
    (BatchRule.multiple is for the rest. Means and sums of a row may still differ in the last bit with its place in the
    call where the row's length is no multiple of 4: they are summed from the next aligned number on.)
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        providers: Sequence[str],
        outputs: Sequence[str],
        limit: TimeLimit | None = None,
    ) -> None:
        """Raises NodeFailed where the file does not load or a provider is not there. Without a limit none is kept."""
        from batch_pipeline.onnx_runtime import ERRORS
        from batch_pipeline.onnx_runtime import onnxruntime as ort

        _check_available(providers, ort.get_available_providers())
        options = ort.SessionOptions()
        on_cpu = tuple(providers) == CPU
        self.lanes = max(1, threads) if on_cpu else 1
        options.intra_op_num_threads = 1 if on_cpu else max(1, threads)
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what is raised would be printed too, once for every row that fails
        self._refusals: tuple[type[Exception], ...] = (*ERRORS, MemoryError)
        try:
            self._session = ort.InferenceSession(str(path), options, providers=list(providers))
        except self._refusals as error:
            raise NodeFailed(f"the model {path.name} does not load: {one_line(error)}") from error
        _check_used(providers, self._session.get_providers())
        self._session.disable_fallback()
        self._outputs = list(dict.fromkeys(outputs))
        self._run_options = ort.RunOptions
        self._limit = limit

    def run(self, inputs: Mapping[str, Array], part: float = 1.0) -> Outputs:
        try:
            if self._limit is None:
                values = self._session.run(self._outputs, dict(inputs))
            else:
                values = self._run_watched(self._limit, inputs, part)
        except self._refusals as error:
            raise _failure(error) from error
        return dict(zip(self._outputs, values, strict=True))

    def stop(self) -> None:
        if self._limit is not None:
            self._limit.end_all()

    def _run_watched(self, limit: TimeLimit, inputs: Mapping[str, Array], part: float) -> list[Any]:
        options = self._run_options()
        call = limit.begin(options, part)
        try:
            values: list[Any] = self._session.run(self._outputs, dict(inputs), options)
        except self._refusals as error:
            if call.ended:
                raise TimedOut(f"the model took longer than {limit.seconds * part:g} seconds") from error
            raise
        finally:
            limit.end(call)
        return values


def _failure(error: Exception) -> BatchFailed:
    what = one_line(error)
    no_memory = isinstance(error, MemoryError) or any(words in what.lower() for words in _NO_MEMORY)
    return OutOfMemory(what or "there is no memory left") if no_memory else BatchFailed(what)


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
