"""The steps of a service: each turns its inputs into one call of `batch_pipeline.service`. No logic of ours here."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun

from batch_pipeline.errors import ThresholdExceeded
from batch_pipeline.node_specs import NodeSpec, NodeSpecs
from batch_pipeline.orchestration import metadata
from batch_pipeline.orchestration.admission import admit_partition, as_admitted
from batch_pipeline.orchestration.failures import as_failures, failure
from batch_pipeline.orchestration.holders import is_ended, nodes_at_once, owner_of
from batch_pipeline.orchestration.interrupts import stopping
from batch_pipeline.orchestration.launched import effective_parameters
from batch_pipeline.orchestration.names import (
    ACCOUNTED,
    INFERENCE_RESULTS,
    INPUT_MANIFEST,
    OUTPUT_MANIFEST,
    TAG_OVERWRITE,
)
from batch_pipeline.orchestration.orphans import die_with_run
from batch_pipeline.orchestration.resources import DeploymentResource
from batch_pipeline.orchestration.tags import resource_tags, service_tags, summary_tags
from batch_pipeline.ownership import Owner

PROGRESS_SECONDS = 10.0
"""How often a node says in the event log how far it is."""


def _run(context: dg.OpExecutionContext) -> DagsterRun:
    # Not `context.run`, which was read before its last tags were added.
    return context.instance.get_run_by_id(context.run_id) or context.run


def _owner(context: dg.OpExecutionContext, service: str) -> Owner:
    return owner_of(_run(context), service)


@dg.op(
    ins={"input_data": dg.In(dg.Nothing), "model": dg.In(dg.Nothing)},
    out={INPUT_MANIFEST: dg.Out(dg.Any, description="The parameters of the service, checked.")},
    config_schema=dict,
)
def ingest_manifest(context: dg.OpExecutionContext, deployment: DeploymentResource) -> Iterator[dg.Output[Any]]:
    """Check the parameters, take the output folder, and read the input list."""
    from batch_pipeline import service

    with as_failures():
        ours = deployment.get()
        parameters = effective_parameters(context.instance, context.op_config, context.partition_key, ours.settings)
        declaration = context.op_config["declaration"]
        context.instance.add_run_tags(context.run_id, service_tags(parameters, declaration))
        admit_partition(context.instance, declaration, context.partition_key, ours.settings)
        admitted = as_admitted(parameters, overwrite=_run(context).tags.get(TAG_OVERWRITE) == context.run_id)
        report = service.ingest(
            admitted, ours, _owner(context, parameters.full_name), is_gone=partial(is_ended, context.instance)
        )
    yield dg.Output(parameters, INPUT_MANIFEST, metadata=metadata.of_input(parameters, report))


@dg.op(out=dg.Out(dg.Any, description="The parameters of the service, as they came."))
def map_columns(context: dg.OpExecutionContext, deployment: DeploymentResource, parameters: Any) -> Any:
    """Fetch the model, bind it to the request, and settle which column goes where."""
    from batch_pipeline import service

    with as_failures():
        report = service.map_columns(parameters, deployment.get())
    context.add_output_metadata(metadata.of_mapping(report))
    return parameters


def fan_out_op(specs: NodeSpecs) -> dg.OpDefinition:
    """Divide the inputs over the nodes. Each node spec has an output of its own, for the op of that spec.

    The outputs are required: an unused one then collects to nothing, where an optional one would skip what follows.
    """

    @dg.op(
        name="fan_out",
        out={spec.identifier: dg.DynamicOut(dg.Any, description=spec.title) for spec in specs},
    )
    def fan_out(
        context: dg.OpExecutionContext, deployment: DeploymentResource, parameters: Any
    ) -> Iterator[dg.DynamicOutput[Any]]:
        from batch_pipeline import service

        with as_failures():
            shards = service.plan(parameters, deployment.get(), _owner(context, parameters.full_name))
        spec = specs[parameters.node_spec]
        for number, shard in enumerate(shards):
            yield dg.DynamicOutput(shard, mapping_key=f"node_{number}", output_name=spec.identifier)

    return fan_out


def infer_op(spec: NodeSpec) -> dg.OpDefinition:
    """One step of it is one compute node of this spec."""

    @dg.op(
        name=f"infer_on_{spec.identifier}",
        description=f"One compute node: {spec.title}.",
        out=dg.Out(dg.Nothing),
        tags=resource_tags(spec),
        pool=f"node_{spec.identifier}",
    )
    def infer(context: dg.OpExecutionContext, deployment: DeploymentResource, shard: Any) -> Iterator[dg.Output[None]]:
        from batch_pipeline import service

        with as_failures():
            ours, owner = deployment.get(), _owner(context, shard.service)
            die_with_run(owner)
            with stopping() as is_asked:
                report = service.infer(
                    shard,
                    ours,
                    owner,
                    _progress_log(context),
                    at_once=nodes_at_once(owner, shard.node_count, ours.settings.local_nodes),
                    stopping=is_asked,
                )
        yield dg.Output(None, metadata=metadata.of_node(report))

    return infer


def write_manifests_op(specs: NodeSpecs) -> dg.OpDefinition:
    """Prove from storage that every input is accounted for, and publish the manifests."""

    @dg.op(
        name="write_manifests",
        ins={"parameters": dg.In(dg.Any), **{spec.identifier: dg.In(dg.Nothing) for spec in specs}},
        out={
            INFERENCE_RESULTS: dg.Out(dg.Nothing),
            OUTPUT_MANIFEST: dg.Out(dg.Nothing),
            ACCOUNTED: dg.Out(dg.Nothing),
        },
    )
    def write_manifests(
        context: dg.OpExecutionContext, deployment: DeploymentResource, parameters: Any
    ) -> Iterator[Any]:
        from batch_pipeline import service

        with as_failures():
            ours = deployment.get()
            summary = service.publish(parameters, ours, _owner(context, parameters.full_name))
            mapping = service.map_columns(parameters, ours)
        context.instance.add_run_tags(context.run_id, summary_tags(summary))
        yield dg.Output(None, INFERENCE_RESULTS, metadata=metadata.of_results(parameters, summary, mapping))
        yield dg.Output(None, OUTPUT_MANIFEST, metadata=metadata.of_manifests(parameters, summary))
        yield metadata.accounted(context.asset_key_for_output(OUTPUT_MANIFEST), summary)
        if summary.state == "failed":
            # The manifests are written and their materializations stay; the service has failed all the same.
            raise failure(ThresholdExceeded(summary.message))

    return write_manifests


@dataclass(frozen=True)
class Steps:
    """The ops that the graph of every declaration is made of."""

    ingest_manifest: dg.OpDefinition
    map_columns: dg.OpDefinition
    fan_out: dg.OpDefinition
    infer: Mapping[str, dg.OpDefinition]
    """By the identifier of the node spec."""
    write_manifests: dg.OpDefinition


@lru_cache
def steps_of(specs: NodeSpecs) -> Steps:
    """The same objects for the same table: Dagster takes two ops of one name for a conflict."""
    infer = {spec.identifier: infer_op(spec) for spec in specs}
    return Steps(ingest_manifest, map_columns, fan_out_op(specs), infer, write_manifests_op(specs))


def _progress_log(context: dg.OpExecutionContext) -> Callable[[Any], None]:
    """Says now and then in the event log how far the node is."""
    said = time.monotonic()

    def on_progress(progress: Any) -> None:
        nonlocal said
        if time.monotonic() - said >= PROGRESS_SECONDS:
            said = time.monotonic()
            context.log.info(f"{progress.done} of {progress.units} inputs done, {progress.failed} failed")

    return on_progress
