"""The graph of steps, and the assets it makes: one partition of them is one service."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import dagster as dg

from batch_pipeline.node_specs import NodeSpecs
from batch_pipeline.orchestration.checks import CHECKS, check_specs
from batch_pipeline.orchestration.config import config_mapping
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.names import INFERENCE_RESULTS, INPUT_MANIFEST, OUTPUT_MANIFEST, TAG_DECLARATION
from batch_pipeline.orchestration.ops import steps_of

INPUT_DATA = "input_data"
MODEL = dg.AssetKey(["batch_pipeline", "model"])

_DESCRIPTIONS = {
    INPUT_MANIFEST: """The input list of the service: the lines of a manifest, or the objects of a folder.

To materialize it is to check the parameters, take the output folder and read the list.""",
    INFERENCE_RESULTS: """One result object per input, under `infer-result/` in the output folder.

It is the answer to a file, or a line for each row of a CSV, in the order of the rows. Every materialization shows
counts, rates, a sample, the first errors, the distribution of the answers, and what it cost.""",
    OUTPUT_MANIFEST: """`infer-result-0.manifest` … for every node: which result belongs to which input.

`infer-error-0.manifest` … are there where inputs failed. Who sees all result manifests sees a finished service.""",
}


def service_graph(declaration: Declaration, specs: NodeSpecs, env: Mapping[str, str]) -> dg.GraphDefinition:
    """ingest_manifest → map_columns → fan_out → infer_on_<spec> × nodes → write_manifests."""
    ops = steps_of(specs)
    checks = {spec.get_python_identifier(): spec.name for spec in check_specs(declaration)}
    upstream = list(_upstream(declaration))

    @dg.graph(
        name=declaration.name,
        description=declaration.description
        or "A model over a folder or manifest of objects, on so many compute nodes; then it stops.",
        tags=_tags(declaration),
        config=config_mapping(declaration, env),
        ins={name: dg.GraphIn() for name in (*upstream, "model")},
        out={
            **{name: dg.GraphOut(description=text) for name, text in _DESCRIPTIONS.items()},
            **{output: dg.GraphOut(description=CHECKS[check][1]) for output, check in checks.items()},
        },
    )
    def steps(model, **data):  # type: ignore[no-untyped-def]
        parameters = ops.ingest_manifest(input_data=list(data.values()), model=model)
        mapped = ops.map_columns(parameters)
        shards = ops.fan_out(mapped)
        nodes = {spec: getattr(shards, spec).map(infer).collect() for spec, infer in ops.infer.items()}
        published = ops.write_manifests(parameters=mapped, **nodes)
        return {
            INPUT_MANIFEST: parameters,
            INFERENCE_RESULTS: getattr(published, INFERENCE_RESULTS),
            OUTPUT_MANIFEST: getattr(published, OUTPUT_MANIFEST),
            **{output: getattr(published, check) for output, check in checks.items()},
        }

    return steps


def service_assets(
    declaration: Declaration, specs: NodeSpecs, env: Mapping[str, str]
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The input data, which others bring, and the assets of the services."""
    keys = {name: declaration.key(name) for name in _DESCRIPTIONS}
    upstream = _upstream(declaration)
    service = dg.AssetsDefinition.from_graph(
        service_graph(declaration, specs, env),
        keys_by_input_name={**upstream, "model": MODEL},
        keys_by_output_name=keys,
        internal_asset_deps={
            INPUT_MANIFEST: set(upstream.values()),
            INFERENCE_RESULTS: {keys[INPUT_MANIFEST], MODEL},
            OUTPUT_MANIFEST: {keys[INFERENCE_RESULTS]},
        },
        partitions_def=declaration.partitions,
        # A service may use any version of the model, and reads whatever its upstream assets have made.
        partition_mappings={name: dg.AllPartitionMapping() for name in (*upstream, "model")},
        group_name=declaration.group,
        descriptions_by_output_name=_DESCRIPTIONS,
        check_specs=check_specs(declaration),
    )
    service = service.map_asset_specs(partial(_described, declaration))
    return [service] if declaration.deps else [_input_data(declaration), service]


def _upstream(declaration: Declaration) -> dict[str, dg.AssetKey]:
    """The input data by the graph's input: assets that others make, or one that stands for the objects themselves."""
    if not declaration.deps:
        return {INPUT_DATA: declaration.key(INPUT_DATA)}
    return {f"{INPUT_DATA}_{number}": key for number, key in enumerate(declaration.deps)}


def _input_data(declaration: Declaration) -> dg.AssetSpec:
    return dg.AssetSpec(
        declaration.key(INPUT_DATA),
        group_name=declaration.group,
        owners=declaration.owners,
        tags=_tags(declaration),
        kinds={"s3"},
        description="The objects of the input folder, or those that the manifest names. Others bring them.",
    )


def _described(declaration: Declaration, spec: dg.AssetSpec) -> dg.AssetSpec:
    return spec.replace_attributes(
        description="\n\n".join(filter(None, (declaration.description, spec.description))),
        owners=declaration.owners,
        tags=_tags(declaration),
        kinds=set(declaration.kinds),
        freshness_policy=declaration.freshness_policy,
        automation_condition=_automation(declaration),
    )


def _tags(declaration: Declaration) -> dict[str, str]:
    """The declaration's own, and its name, by which its assets can be selected."""
    return {TAG_DECLARATION: declaration.name, **declaration.tags}


def _automation(declaration: Declaration) -> dg.AutomationCondition[Any] | None:
    """A version that is pushed, or was never looked at, is no reason to run a service, nor to hold it back."""
    condition = declaration.automation_condition
    ignore = getattr(condition, "ignore", None)
    return ignore(dg.AssetSelection.assets(MODEL)) if ignore is not None else condition
