"""The one place that imports ONNX Runtime. Import this where a model is loaded: it is heavy."""

from __future__ import annotations

import os
from typing import Any

# Since 1.32 it sends telemetry, and leaves files in the home and temporary folders, unless it is told before
# it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _native

ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in vars(_native).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What ONNX Runtime raises; its own exceptions have no base of their own."""


def session_options(threads: int) -> Any:
    """Those that a node loads a model with, all optimizations included, and so does the trial of a package."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what is raised would be printed too, once for every row that fails
    return options


__all__ = ["ERRORS", "onnxruntime", "session_options"]
