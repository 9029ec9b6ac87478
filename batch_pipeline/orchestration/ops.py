"""The steps of a service: each turns its inputs into one call of `batch_pipeline.service`. No logic of ours here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import DagsterRun

from batch_pipeline.errors import AccountingFailed, ThresholdExceeded
from batch_pipeline.node_specs import NodeSpec, NodeSpecs
from batch_pipeline.orchestration import checks, metadata, saying
from batch_pipeline.orchestration.admission import as_admitted, may_start_over
from batch_pipeline.orchestration.earlier import Earlier, earlier_runs
from batch_pipeline.orchestration.effective_parameters import effective_parameters, inherited_description
from batch_pipeline.orchestration.failures import as_failures, failure, refusals_noted
from batch_pipeline.orchestration.holders import is_ended, nodes_at_once, owner_of
from batch_pipeline.orchestration.interrupts import stopping
from batch_pipeline.orchestration.names import (
    INFER,
    INFERENCE_RESULTS,
    INPUT_MANIFEST,
    OUTPUT_MANIFEST,
    TAG_DECLARATION,
    TAG_DESCRIPTION,
    TAG_EDITED,
)
from batch_pipeline.orchestration.orphans import die_with_run
from batch_pipeline.orchestration.resources import IO_MANAGER, DeploymentResource
from batch_pipeline.orchestration.tags import identity_tags, model_tags, resource_tags, service_tags, summary_tags
from batch_pipeline.orchestration.turns import admit
from batch_pipeline.ownership import Owner


def _run(context: dg.OpExecutionContext) -> DagsterRun:
    # Not `context.run`, which was read before its last tags were added.
    return context.instance.get_run_by_id(context.run_id) or context.run


def _owner(context: dg.OpExecutionContext, service: str) -> Owner:
    """In whose name the step writes. Its process ends with the run's from here on: another run may take over then."""
    owner = owner_of(_run(context), service)
    die_with_run(owner)
    return owner


_PARAMETERS = {"parameters": dg.In(dg.Any, description="The parameters of the service, checked.")}


@dg.op(
    ins={
        "input_data": dg.In(dg.Nothing, description="What others make of the inputs. Nothing is handed over."),
        "model": dg.In(dg.Nothing, description="The registry's versions. Nothing is handed over."),
    },
    out={
        INPUT_MANIFEST: dg.Out(dg.Any, io_manager_key=IO_MANAGER, description="The parameters of the service, checked.")
    },
    config_schema=dg.Field(dict, description="The parameters as they were given, their template and its name."),
    tags={"dagster/kind/s3": ""},
)
def ingest_manifest(
    context: dg.OpExecutionContext, batch_pipeline_deployment: DeploymentResource
) -> Iterator[dg.Output[Any]]:
    """Check the parameters, take the output folder, and read the input list.

    What is wrong with the parameters, the model or the input path is refused here, before anything is written. Where
    an earlier attempt has finished everything, the steps that follow have nothing to do.
    """
    from batch_pipeline import service

    with as_failures(context), refusals_noted(context.instance, context.run_id):
        declaration = context.op_config["declaration"]
        # A run that is refused for its parameters is this service's, too.
        context.instance.add_run_tags(context.run_id, identity_tags(declaration, context.partition_key))
        ours, run = batch_pipeline_deployment.get(), _run(context)
        parameters = effective_parameters(context.instance, context.op_config, context.partition_key, ours.settings)
        description = inherited_description(context.instance, context.op_config, context.partition_key, run)
        edited = {} if description is None else {TAG_EDITED: "true"}
        if description is not None:
            parameters = parameters.model_copy(update={"description": description})
        # A re-execution has its parent's tags, whose description an empty one would leave standing.
        copied = dict.fromkeys({TAG_DESCRIPTION, TAG_EDITED} & run.tags.keys(), "")
        context.instance.add_run_tags(context.run_id, {**copied, **service_tags(parameters, declaration), **edited})
        admit(context.instance, declaration, run, ours.settings)
        admitted = as_admitted(parameters, overwrite=may_start_over(run))
        report = service.ingest(
            admitted, ours, _owner(context, parameters.full_name), is_gone=partial(is_ended, context.instance)
        )
    context.log.info(saying.of_input(parameters, report))
    yield dg.Output(parameters.of(report.made_from), INPUT_MANIFEST, metadata=metadata.of_input(parameters, report))


@dg.op(
    ins=_PARAMETERS,
    out=dg.Out(dg.Any, io_manager_key=IO_MANAGER, description="The parameters, `model` as the version that was found."),
    tags={"dagster/kind/onnx": ""},
)
def map_columns(context: dg.OpExecutionContext, batch_pipeline_deployment: DeploymentResource, parameters: Any) -> Any:
    """Find the model version, bind it to the request, and settle which column goes where.

    The steps that follow use this version, whatever is pushed to the registry meanwhile.
    """
    from batch_pipeline import service

    with as_failures(context):
        report = service.map_columns(parameters, batch_pipeline_deployment.get())
    context.instance.add_run_tags(context.run_id, model_tags(report.model))
    context.log.info(saying.of_mapping(report))
    context.add_output_metadata(metadata.of_mapping(report))
    return parameters.model_copy(update={"model": report.model})


def fan_out_op(specs: NodeSpecs) -> dg.OpDefinition:
    """Each node spec has an output of its own, for the op of that spec.

    The outputs are required: an unused one then collects to nothing, where an optional one would skip what follows.
    """

    @dg.op(
        name="fan_out",
        ins=_PARAMETERS,
        tags={"dagster/kind/s3": ""},
        out={
            spec.identifier: dg.DynamicOut(dg.Any, io_manager_key=IO_MANAGER, description=f"Nodes of {spec.title}.")
            for spec in specs
        },
    )
    def fan_out(
        context: dg.OpExecutionContext, batch_pipeline_deployment: DeploymentResource, parameters: Any
    ) -> Iterator[dg.DynamicOutput[Any]]:
        """Divide the inputs over the nodes: by size where sizes are known, else by count.

        A large CSV is itself divided. The plan is written to the output folder, and each node is handed a reference to
        its share of it. Where everything was finished before, no node starts.
        """
        from batch_pipeline import service

        with as_failures(context):
            shards = service.plan(parameters, batch_pipeline_deployment.get(), _owner(context, parameters.full_name))
        context.log.info(saying.of_plan(parameters, shards))
        spec = specs[parameters.node_spec]
        for number, shard in enumerate(shards):
            yield dg.DynamicOutput(shard, mapping_key=f"node_{number}", output_name=spec.identifier)

    return fan_out


def infer_op(spec: NodeSpec) -> dg.OpDefinition:
    """One step of it is one compute node of this spec."""

    @dg.op(
        name=f"{INFER}{spec.identifier}",
        description=f"One compute node: {spec.title}.\n\nIt reads its share of the inputs, asks the model for answers, "
        "writes a result per input, and records in the ledger what is finished. A node that is tried again does only "
        "what is left.",
        ins={"shard": dg.In(dg.Any, description="A reference to this node's share of the plan.")},
        out=dg.Out(
            dg.Nothing, io_manager_key=IO_MANAGER, description="The node has ended; what it finished is in storage."
        ),
        tags=resource_tags(spec),
        pool=f"node_{spec.identifier}",
    )
    def infer(
        context: dg.OpExecutionContext, batch_pipeline_deployment: DeploymentResource, shard: Any
    ) -> Iterator[dg.Output[None]]:
        from batch_pipeline import service

        context.log.info(saying.of_start(shard))
        with as_failures(context):
            ours, owner = batch_pipeline_deployment.get(), _owner(context, shard.service)
            with stopping() as is_asked:
                report = service.infer(
                    shard,
                    ours,
                    owner,
                    saying.ProgressLog(shard, context.log.info),
                    at_once=nodes_at_once(owner, shard.node_count, ours.settings.local_nodes),
                    stopping=is_asked,
                )
        context.log.info(saying.of_end(shard, report))
        yield dg.Output(None, metadata=metadata.of_node(report))

    return infer


def write_manifests_op(specs: NodeSpecs) -> dg.OpDefinition:
    """It waits for the nodes of every spec, and has an output for each asset and check."""
    nodes = {spec.identifier: dg.In(dg.Nothing, description=f"Nodes of {spec.title} that ended.") for spec in specs}

    @dg.op(
        name="write_manifests",
        tags={"dagster/kind/s3": ""},
        ins={**_PARAMETERS, **nodes},
        out={
            INFERENCE_RESULTS: dg.Out(dg.Nothing, io_manager_key=IO_MANAGER, description="Every result is in storage."),
            OUTPUT_MANIFEST: dg.Out(dg.Nothing, io_manager_key=IO_MANAGER, description="The manifests are in storage."),
            **{
                check: dg.Out(dg.Nothing, io_manager_key=IO_MANAGER, description=text)
                for check, (_, text) in checks.CHECKS.items()
            },
        },
    )
    def write_manifests(
        context: dg.OpExecutionContext, batch_pipeline_deployment: DeploymentResource, parameters: Any
    ) -> Iterator[Any]:
        """Prove from storage that every input is accounted for, publish the manifests, and review the answers.

        The manifests are written last, once everything that they name is durable. Where more failed than
        `error_threshold` allows, they are written all the same, and the service has failed.
        """
        from batch_pipeline import service

        with as_failures(context):
            ours = batch_pipeline_deployment.get()
            try:
                summary = service.publish(parameters, ours, _owner(context, parameters.full_name))
            except AccountingFailed as error:
                # Where people look, too; the step, and with it the service, has failed all the same.
                yield checks.unaccounted(error, context.asset_key_for_output(OUTPUT_MANIFEST))
                raise
            mapping = service.made_with(parameters, ours)
        context.instance.add_run_tags(context.run_id, summary_tags(summary))
        context.log.info(saying.of_summary(parameters, summary))
        keys = {asset: context.asset_key_for_output(asset) for asset in (INFERENCE_RESULTS, OUTPUT_MANIFEST)}
        # Asked for before this run's own materialization is there.
        verdicts = list(checks.results(parameters, summary, _earlier(context, keys[INFERENCE_RESULTS]), keys))
        yield dg.Output(None, INFERENCE_RESULTS, metadata=metadata.of_results(parameters, summary, mapping))
        yield dg.Output(None, OUTPUT_MANIFEST, metadata=metadata.of_manifests(parameters, summary))
        yield from verdicts
        if summary.state == "failed":
            # The manifests are written and their materializations stay; the service has failed all the same.
            raise failure(ThresholdExceeded(summary.message))

    return write_manifests


def _earlier(context: dg.OpExecutionContext, results: dg.AssetKey) -> list[Earlier]:
    """Services of the Launchpad have nothing to do with each other; those of one declaration are alike."""
    declared = TAG_DECLARATION in _run(context).tags
    return earlier_runs(context.instance, results, context.partition_key, context.run_id, others=declared)


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
