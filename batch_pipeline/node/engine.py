"""Runs a model on arrays. What the arrays mean is nobody's business here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from batch_pipeline.errors import NodeFailed
from batch_pipeline.models.onnx_model import seconds_to_load
from batch_pipeline.models.zip_map import LARGEST, ZipMap, without_zip_maps
from batch_pipeline.node.time_limit import TimeLimit

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

Outputs = dict[str, Any]
"""By output name: an array, or a list with a dict (a ZipMap) or an array of its own size for each row.

A ZipMap that was taken out is an array too, with a column for each of its keys (OnnxEngine.keys).
"""

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


@dataclass(frozen=True)
class _Loaded:
    """A session, and the ZipMaps that were taken out of its model, by the outputs they made."""

    session: Any
    zip_maps: Mapping[str, ZipMap]

    def fetched(self, outputs: Sequence[str]) -> list[str]:
        """The session's names for these outputs."""
        return list(dict.fromkeys(self._fetched(name) for name in outputs))

    def named(self, outputs: Sequence[str], fetched: Mapping[str, Any]) -> Outputs | None:
        """What was fetched, by output; None where a ZipMap that was taken out would not have made maps of it."""
        named = {name: fetched[self._fetched(name)] for name in outputs}
        for name, zip_map in self.zip_maps.items():
            if named[name].shape[1:] != (len(zip_map.keys),):
                return None
            if zip_map.columns != tuple(range(len(zip_map.keys))):
                named[name] = named[name][:, zip_map.columns]
        return named

    def _fetched(self, output: str) -> str:
        return self.zip_maps[output].scores if output in self.zip_maps else output


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
        maps: Collection[str] = (),
    ) -> None:
        """Raises NodeFailed where the file does not load or a provider is not there. Without a limit none is kept.

        Those of the outputs that are `maps` come as arrays, and their keys stand in `keys`, where that can be done.
        """
        from batch_pipeline.onnx_runtime import ERRORS, session_options
        from batch_pipeline.onnx_runtime import onnxruntime as ort

        _check_available(providers, ort.get_available_providers())
        self._path, self._providers = path, list(providers)
        on_cpu = tuple(providers) == CPU
        self.lanes = max(1, threads) if on_cpu else 1
        self._options = session_options(1 if on_cpu else max(1, threads))
        self._refusals: tuple[type[Exception], ...] = (*ERRORS, MemoryError)
        self._session_of = ort.InferenceSession
        self._outputs = list(dict.fromkeys(outputs))
        self._run_options = ort.RunOptions
        self._limit = limit
        self._loaded = self._without_zip_maps(maps) or self._as_it_is()
        self.keys = {name: zip_map.keys for name, zip_map in self._loaded.zip_maps.items()}

    def _as_it_is(self) -> _Loaded:
        try:
            return self._load(str(self._path))
        except self._refusals as error:
            raise NodeFailed(f"the model {self._path.name} does not load: {one_line(error)}") from error

    def _without_zip_maps(self, maps: Collection[str]) -> _Loaded | None:
        """None where there are none, or where the model is not to be loaded without them."""
        wanted = [name for name in self._outputs if name in maps]
        if not wanted or not self._path.is_file() or self._path.stat().st_size > LARGEST:
            return None
        model, found = without_zip_maps(self._path.read_bytes(), wanted)
        try:
            return self._load(model, {one.output: one for one in found}) if found else None
        except self._refusals:
            return None  # loaded as it is, it loads, or says for itself why not

    def _load(self, model: str | bytes, zip_maps: Mapping[str, ZipMap] | None = None) -> _Loaded:
        # Its optimizations compute what no input has a say in.
        watched = nullcontext() if self._limit is None else self._limit.loading(seconds_to_load(self._path))
        with watched:
            session = self._session_of(model, self._options, providers=self._providers)
        _check_used(self._providers, session.get_providers())
        session.disable_fallback()
        return _Loaded(session, zip_maps or {})

    def run(self, inputs: Mapping[str, Array], part: float = 1.0) -> Outputs:
        loaded = self._loaded
        names = loaded.fetched(self._outputs)
        try:
            if self._limit is None:
                values = loaded.session.run(names, dict(inputs))
            else:
                values = self._run_watched(loaded, names, self._limit, inputs, part)
        except self._refusals as error:
            raise _failure(error) from error
        outputs = loaded.named(self._outputs, dict(zip(names, values, strict=True)))
        if outputs is None:
            self._loaded = self._as_it_is()  # its ZipMap says what it has against these scores
            return self.run(inputs, part)
        return outputs

    def stop(self) -> None:
        if self._limit is not None:
            self._limit.end_all()

    def _run_watched(
        self, loaded: _Loaded, names: list[str], limit: TimeLimit, inputs: Mapping[str, Array], part: float
    ) -> list[Any]:
        options = self._run_options()
        call = limit.begin(options, part)
        try:
            values: list[Any] = loaded.session.run(names, dict(inputs), options)
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
