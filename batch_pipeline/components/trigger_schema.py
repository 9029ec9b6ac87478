"""The schema of triggers in YAML: one model for each kind, which makes the plain data that sensors work with."""

from __future__ import annotations

from typing import Annotated, Any, Self

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field, model_validator

from batch_pipeline.components.rendering import rendered
from batch_pipeline.triggers.settings import (
    LEAST,
    ManifestTrigger,
    ModelTrigger,
    NewFilesTrigger,
    NotificationTrigger,
    ScheduleTrigger,
    Trigger,
)

StatePath = Annotated[
    str | None, Field(description="The folder where it remembers what it took; by default beside the outputs.")
]
Interval = Annotated[
    int, Field(ge=LEAST["interval_seconds"], description="The least number of seconds between two looks.")
]


def _one_of(description: str) -> Any:
    # Not an optional field: of a union Dagster can only say that nothing fits, not what is wrong with which key.
    return Field(default=None, description=description)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ManifestsModel(_Strict):
    """Each new or rewritten *.manifest under a folder is a service."""

    path: str = Field(description="The folder that is watched: s3://bucket/prefix/")
    state_path: StatePath = None
    interval_seconds: Interval = 30


class _Gathering(_Strict):
    settle_seconds: float = Field(
        default=60.0, ge=LEAST["settle_seconds"], description="Files are gathered once none has come this long, …"
    )
    max_files: int = Field(default=10_000, ge=LEAST["max_files"], description="… or there are so many, …")
    max_bytes: int | None = Field(default=None, ge=LEAST["max_bytes"], description="… or they have so many bytes.")
    pattern: str = Field(default="*", description="Which file names count, as in a shell.")
    manifests_path: str | None = Field(
        default=None, description="The folder where the manifests are written; by default beside the outputs."
    )
    state_path: StatePath = None
    interval_seconds: Interval = 30


class NewFilesModel(_Gathering):
    """New objects under a folder are gathered into a manifest, which is a service."""

    path: str = Field(description="The folder that is watched: s3://bucket/prefix/")


class NotificationsModel(_Gathering):
    """New objects that a queue of bucket notifications tells of are gathered into a manifest, which is a service."""

    queue_url: str = Field(description="The address of the SQS queue.")
    path: str | None = Field(
        default=None, description="The folder whose objects count; by default every object that the queue tells of."
    )


class ScheduleModel(_Strict):
    """A service at the times of a cron schedule."""

    cron: str = Field(description='A cron expression, for example "0 6 * * *".')
    timezone: str = Field(default="UTC", description="The time zone of the expression, for example Europe/Berlin.")


class ModelModel(_Strict):
    """A new normal version of the model runs the services again, each with its own recorded parameters."""

    interval_seconds: Interval = 60


class TriggerModel(_Strict):
    """One trigger: an object whose one key is its kind."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1, "maxProperties": 1})

    manifests: ManifestsModel = _one_of("Each new or rewritten *.manifest under a folder is a service.")
    new_files: NewFilesModel = _one_of("New objects under a folder are gathered into a service.")
    notifications: NotificationsModel = _one_of("The same from an SQS queue of bucket notifications.")
    schedule: ScheduleModel = _one_of("A service at the times of a cron schedule.")
    model: ModelModel = _one_of("A new normal version of the model runs the services again.")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            given = " and ".join(sorted(self.model_fields_set)) or "none"
            raise ValueError(f"must have exactly one of the keys {', '.join(_KINDS)}, and has {given}")
        return self


_KINDS: dict[str, type[Trigger]] = {
    kind.kind: kind for kind in (ManifestTrigger, NewFilesTrigger, NotificationTrigger, ScheduleTrigger, ModelTrigger)
}


def to_triggers(context: dg.ResolutionContext, models: Any) -> list[Trigger]:
    """The triggers as YAML has them, as plain data."""
    return [_KINDS[kind](**settings) for values in rendered(context, models) for kind, settings in values.items()]
