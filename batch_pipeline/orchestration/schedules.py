"""The schedules of a declaration: a service at each time, or the one fixed service again."""

from __future__ import annotations

from typing import Any

import dagster as dg

from batch_pipeline.orchestration.declaration import Declaration


def schedules_of(declaration: Declaration, job: Any) -> list[dg.ScheduleDefinition]:  # noqa: ARG001
    return []
