"""What the steps are given: the deployment, a shell without config around the plain object; and the IO manager."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import dagster as dg

from batch_pipeline.locations import Location

if TYPE_CHECKING:
    from batch_pipeline.deployment import Deployment


class DeploymentResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The deployment: its settings are environment variables."""

    def get(self) -> "Deployment":
        """Raises `InvalidSettings`."""
        from batch_pipeline.deployment import Deployment

        return Deployment.from_environment()

    def in_tick(self) -> "Deployment":
        """The same for a sensor, which must end well before Dagster ends its tick. Raises `InvalidSettings`."""
        from batch_pipeline.deployment import Deployment
        from batch_pipeline.storage.timeouts import IN_TICKS

        return Deployment.from_environment(timeouts=IN_TICKS)


def step_outputs(folder: Location | None) -> dict[str, Any]:
    """The IO manager of a deployment whose steps run on several machines; none for Dagster's own, of one machine."""
    if folder is None:
        return {}
    from dagster_aws.s3 import S3PickleIOManager, S3Resource

    # Endpoint, region and credentials are the S3 client's own, from the environment.
    return {"io_manager": S3PickleIOManager(s3_resource=S3Resource(), s3_bucket=folder.bucket, s3_prefix=folder.key)}


@lru_cache
def resources_of(folder: Location | None) -> Mapping[str, Any]:
    """The resources of every declaration, where step outputs go to `folder`.

    The same objects each time: definitions that are merged may share a resource, but not have two of one key.
    """
    return MappingProxyType({"deployment": DeploymentResource(), **step_outputs(folder)})
