"""Imported once by the forkserver: all that a step imports and reads before its work. Nothing is computed here.

A few threads start all the same, of NumPy's, Arrow's and Polars' allocators and idle pools, which a fork does not harm;
once they had computed something, it would. ONNX Runtime's threads are left to the nodes. The storages are named here
because an instance loads them by name, in every step anew.
"""

import gc
from importlib import import_module

from batch_pipeline.node.allocator import keep_freed_memory
from batch_pipeline.storage.connection import read_descriptions

MODULES = (
    "dagster._core.execution.plan.execute_step",
    "dagster._core.executor.child_process_executor",
    "dagster._core.launcher.default_run_launcher",
    "dagster._core.run_coordinator.queued_run_coordinator",
    "dagster._core.storage.event_log",
    "dagster._core.storage.fs_io_manager",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.root",
    "dagster._core.storage.runs",
    "dagster._core.storage.schedules",
    "dagster._core.storage.sqlite_storage",
    "alembic.command",
    "sqlalchemy.dialects.sqlite",
    "boto3.session",
    "botocore.session",
    "jsonschema",
    "numpy",
    "obstore.store",
    "polars",
    "pyarrow.parquet",
    "upath",
    "batch_pipeline.definitions",
    "batch_pipeline.models.registry",
    "batch_pipeline.node.apart",
    "batch_pipeline.orchestration.coordinator",
    "batch_pipeline.review.report",
    "batch_pipeline.service",
    "batch_pipeline.share_links",
    "batch_pipeline.storage.buckets",
)

keep_freed_memory()
gc.disable()
try:
    for module in MODULES:
        import_module(module)
    read_descriptions()
finally:
    # What was imported is no garbage: no step looks there for some, which would also give it a copy of each page.
    gc.freeze()
    gc.enable()
