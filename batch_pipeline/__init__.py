"""Batch inference as a service: a model over a folder or manifest of objects in a bucket, on N compute nodes.

The functions are loaded when they are first used, so that importing the package stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batch_pipeline.api import (
        delete_service,
        deploy,
        describe_service,
        export_results,
        list_services,
        load_results,
        preview,
        run_service,
        show_service,
        stop_service,
    )
    from batch_pipeline.components.batch_service import BatchService
    from batch_pipeline.components.model_registry import ModelRegistry

__all__ = [
    "BatchService",
    "ModelRegistry",
    "delete_service",
    "deploy",
    "describe_service",
    "export_results",
    "list_services",
    "load_results",
    "preview",
    "run_service",
    "show_service",
    "stop_service",
]


_COMPONENTS = {"BatchService": "batch_service", "ModelRegistry": "model_registry"}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _COMPONENTS:
        return getattr(import_module(f"batch_pipeline.components.{_COMPONENTS[name]}"), name)
    if name in __all__:
        return getattr(import_module("batch_pipeline.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
