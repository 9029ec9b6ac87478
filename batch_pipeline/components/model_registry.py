"""The component of the models' registry: the asset of their versions, for projects that declare services."""

from __future__ import annotations

import os

import dagster as dg

from batch_pipeline.orchestration.model_assets import model_registry_definitions
from batch_pipeline.orchestration.resources import resources_of
from batch_pipeline.settings import Settings


class ModelRegistry(dg.Component, dg.Model, dg.Resolvable):
    """The models of the registry (BATCH_PIPELINE_MODELS): an asset with a partition for each version, its status as a
    check, and the sensor that sees new versions. At most once in a code location.
    """

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """What the list of components says of it."""
        return dg.ComponentTypeSpec(
            description="The models of the registry, version by version, with their status.",
            tags=["batch inference", "onnx"],
            produces=["asset", "asset_check", "sensor"],
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002  dagster calls it so
        """The registry's assets and sensor. Raises `InvalidSettings`."""
        resources = resources_of(Settings.from_environment().step_outputs)
        return dg.Definitions.merge(model_registry_definitions(os.environ), dg.Definitions(resources=resources))
