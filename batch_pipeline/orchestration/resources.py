"""What the steps are given: the deployment, a shell without config around the plain object; and the IO manager.

Their keys are ours: a project that declares services beside its own assets has resources of its own.
"""

import os
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import dagster as dg

from batch_pipeline.locations import Location

if TYPE_CHECKING:
    from batch_pipeline.deployment import Deployment


DEPLOYMENT = "batch_pipeline_deployment"
"""Steps, sensors and schedules have an argument of this name, as Dagster wants it."""
IO_MANAGER = "batch_pipeline_io_manager"

_OF = ("AWS_", "BATCH_PIPELINE_", "HOME")
"""What a deployment and its clients are made from begins so, in the environment."""


class DeploymentResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The deployment: its settings are environment variables."""

    def get(self) -> "Deployment":
        """The process's own, with its clients and tables, for as long as it is to be the same.

        Raises `InvalidSettings`.
        """
        return _deployment(frozenset((name, value) for name, value in os.environ.items() if name.startswith(_OF)))

    def anew(self) -> "Deployment":
        """The same at the start of something new: tables and credentials are read again. Raises `InvalidSettings`."""
        _deployment.cache_clear()
        return self.get()

    def in_tick(self) -> "Deployment":
        """The same for a sensor, which must end well before Dagster ends its tick. Raises `InvalidSettings`."""
        from batch_pipeline.deployment import Deployment
        from batch_pipeline.storage.timeouts import IN_TICKS

        return Deployment.from_environment(timeouts=IN_TICKS)


@lru_cache(maxsize=1)
def _deployment(_environment: frozenset[tuple[str, str]]) -> "Deployment":
    from batch_pipeline.deployment import Deployment

    return Deployment.from_environment()


def io_manager(folder: Location | None) -> dg.ConfigurableIOManagerFactory[Any]:
    """How steps hand on what little they do: through `folder`, or by Dagster's own files, of one machine."""
    if folder is None:
        return dg.FilesystemIOManager()
    from dagster_aws.s3 import S3PickleIOManager, S3Resource

    # Endpoint, region and credentials are the S3 client's own, from the environment.
    return S3PickleIOManager(s3_resource=S3Resource(), s3_bucket=folder.bucket, s3_prefix=folder.key)


@lru_cache
def resources_of(folder: Location | None) -> Mapping[str, Any]:
    """The resources of every declaration, where step outputs go to `folder`.

    The same objects each time: definitions that are merged may share a resource, but not have two of one key.
    """
    return MappingProxyType({DEPLOYMENT: DeploymentResource(), IO_MANAGER: io_manager(folder)})
