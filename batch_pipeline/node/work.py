"""Loads the model of a job and puts the threads around it that turn inputs into answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from batch_pipeline.models.binding import Binding
from batch_pipeline.models.preprocessing import load
from batch_pipeline.node.batching import BatchingEngine, BatchRule
from batch_pipeline.node.csv_unit import CsvWork
from batch_pipeline.node.engine import CPU, Engine, OnnxEngine
from batch_pipeline.node.file_unit import FileWork
from batch_pipeline.node.job import NodeJob
from batch_pipeline.node.sample import Sample
from batch_pipeline.node.time_limit import TimeLimit

ROWS_A_BATCH = 2048, 4096
FILES_A_BATCH = 1, 32
"""In one call of the model: in the first one, and at most."""
FILES_A_BATCH_ON_CPU = 1, 8
"""More of them are no quicker there, and take more memory."""
ROWS_AT_ONCE = 4
"""ONNX Runtime's CPU kernels that are built for every processor compute so many numbers at once."""
SAMPLED = 3


@contextmanager
def opened_work(job: NodeJob, *, samples: int = SAMPLED, engine: Engine | None = None) -> Iterator[CsvWork | FileWork]:
    """The model, loaded, and the threads around it. Raises NodeFailed where it cannot be.

    Where the block is interrupted, the calls that are under way are ended, so that no thread is waited for.
    """
    _acquaint_polars_with_numpy()
    binding = job.binding
    outputs = [leaf.output for leaf in binding.response]
    on_cpu = tuple(job.providers) == CPU
    with ExitStack() as stack:
        limit = stack.enter_context(TimeLimit(job.batch_seconds))
        if engine is None:
            engine = loaded = OnnxEngine(
                job.model_folder / job.model_file,
                threads=job.threads,
                providers=job.providers,
                outputs=outputs,
                limit=limit,
                maps=[leaf.output for leaf in binding.response if leaf.form == "map"],
            )
            binding = _with_keys(binding, loaded.keys)
        batching = stack.enter_context(BatchingEngine(engine, batch_rule(binding, on_cpu=on_cpu)))
        pool = stack.enter_context(ThreadPoolExecutor(job.threads + 1, thread_name_prefix="parse"))
        stack.enter_context(_stopped_by_interrupt(batching))
        sample = Sample(samples)
        if binding.kind == "file":
            # On CPUs what decodes and what computes take the same cores: one thread each does both in turn.
            decoders = None if on_cpu else pool
            yield FileWork(binding, load(job.model_folder), batching, decoders, sample, limit)
        else:
            assert job.mapping is not None, "a JSON API has a mapping"
            yield CsvWork(binding, job.mapping, job.csv, job.join_input, batching, pool, sample)


def _acquaint_polars_with_numpy() -> None:
    """Polars imports NumPy when it first meets an array of it. Where two threads do so at once, it fails: what stands
    in for NumPy until then is overwritten with NumPy's attributes, its own `_globals` included."""
    import numpy as np
    import polars as pl

    pl.Series(np.empty(0))


@contextmanager
def _stopped_by_interrupt(batching: BatchingEngine) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        batching.stop()
        raise


def _with_keys(binding: Binding, keys: Mapping[str, tuple[str, ...]]) -> Binding:
    """The binding, as it is for maps that come as arrays."""
    if not keys:
        return binding
    return replace(binding, response=tuple(replace(leaf, keys=keys.get(leaf.output)) for leaf in binding.response))


def batch_rule(binding: Binding, *, on_cpu: bool) -> BatchRule:
    """How this binding's rows go into calls of the model."""
    file = binding.file
    raw = file is not None and file.form == "bytes"
    whole = raw and file is not None and file.tensor.element != "string"
    ranks = {"scalar": None, "array": 2, "matrix": 3}
    ranked = {leaf.output: rank for leaf in binding.response if (rank := ranks.get(leaf.form)) is not None}
    first, most = ROWS_A_BATCH if file is None else FILES_A_BATCH_ON_CPU if on_cpu else FILES_A_BATCH
    return BatchRule(most, binding.batch, first, ROWS_AT_ONCE if file is None else 1, whole, ranked)
