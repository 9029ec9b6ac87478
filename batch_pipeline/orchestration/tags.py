"""Tags: what runs say about their service, and what inference ops ask of Kubernetes and Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batch_pipeline.node_specs import NodeSpec
from batch_pipeline.orchestration.names import (
    ALL_STEPS,
    RETRY_STRATEGY,
    SERVICE,
    TAG_DECLARATION,
    TAG_DESCRIPTION,
    TAG_INPUTS,
    TAG_INPUTS_DONE,
    TAG_MODEL,
    TAG_NODES,
    TAG_OUTPUT,
    TAG_SERVICE,
    full_name,
)
from batch_pipeline.parameters import ServiceParameters

if TYPE_CHECKING:
    from batch_pipeline.summary import Summary

TAG_MODEL_VERSION = "batch_pipeline/model_version"
"""The version that a run found for its model, which its parameters may leave open."""


def identity_tags(declaration: str, partition: str) -> dict[str, str]:
    """Whose run it is: all that is known before its parameters are."""
    declared = {} if declaration == SERVICE else {TAG_DECLARATION: declaration}
    return {TAG_SERVICE: full_name(declaration, partition), **declared}


def service_tags(parameters: ServiceParameters, declaration: str = SERVICE) -> dict[str, str]:
    """The tags of a service's run. An empty text is no tag."""
    tags = {
        **identity_tags(declaration, parameters.name or ""),
        TAG_OUTPUT: parameters.output_path,
        TAG_MODEL: parameters.model,
        TAG_NODES: f"{parameters.node_count} × {parameters.node_spec}",
        TAG_DESCRIPTION: parameters.description,
        # Storage says what is done. Dagster, going on from the step that failed, may lose nodes.
        RETRY_STRATEGY: ALL_STEPS,
    }
    return {key: value for key, value in tags.items() if value}


def model_tags(ref: str) -> dict[str, str]:
    """Of a version, `name:version`, once it is found."""
    return {TAG_MODEL_VERSION: ref}


def summary_tags(summary: Summary) -> dict[str, str]:
    """How many inputs there are and how many are done, kept with the run so that a list needs no storage."""
    return {TAG_INPUTS: str(summary.inputs), TAG_INPUTS_DONE: str(summary.succeeded + summary.failed)}


def resource_tags(spec: NodeSpec) -> dict[str, Any]:
    """What the step of one node needs, as dagster-k8s and dagster-ray read it, and the spec's own tags."""
    resources = {"cpu": str(spec.cpu), "memory": f"{spec.memory_gib:g}Gi"}
    limits = {**resources, **({"nvidia.com/gpu": str(spec.gpu)} if spec.gpu else {})}
    ray = {"num_cpus": spec.cpu, "num_gpus": spec.gpu, "memory": int(spec.memory_gib * 2**30)}
    tags: dict[str, Any] = {
        "dagster-k8s/config": {"container_config": {"resources": {"requests": dict(limits), "limits": limits}}},
        "dagster-ray/config": ray,
        "batch_pipeline/node_spec": spec.id,
        "dagster/kind/onnx": "",
    }
    return {**tags, **spec.tags}
