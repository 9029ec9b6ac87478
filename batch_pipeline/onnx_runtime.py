"""The one place that imports ONNX Runtime. Import this where a model is loaded: it is heavy."""

import os

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

__all__ = ["ERRORS", "onnxruntime"]
