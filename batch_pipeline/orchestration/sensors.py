"""The sensors of a declaration: one for each place that is watched."""

from __future__ import annotations

from typing import Any

import dagster as dg

from batch_pipeline.orchestration.declaration import Declaration


def sensors_of(declaration: Declaration, job: Any) -> list[dg.SensorDefinition]:  # noqa: ARG001
    return []
