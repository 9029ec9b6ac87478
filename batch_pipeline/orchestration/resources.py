"""The deployment as a Dagster resource: a shell without config that hands back the plain object."""

from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from batch_pipeline.deployment import Deployment


class DeploymentResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The deployment: its settings are environment variables."""

    def get(self) -> "Deployment":
        """Raises `InvalidSettings`."""
        from batch_pipeline.deployment import Deployment

        return Deployment.from_environment()
