"""The graph of steps, and the assets it makes: one partition of them is one service."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from batch_pipeline.node_specs import NodeSpecs
from batch_pipeline.orchestration.config import config_mapping
from batch_pipeline.orchestration.names import (
    ACCOUNTED,
    ACCOUNTED_OUTPUT,
    INFERENCE_RESULTS,
    INPUT_MANIFEST,
    OUTPUT_MANIFEST,
    SERVICE,
)
from batch_pipeline.orchestration.ops import fan_out_op, infer_op, ingest_manifest, map_columns, write_manifests_op

services_partitions = dg.DynamicPartitionsDefinition(name=SERVICE)

INPUT_DATA = dg.AssetKey("input_data")
MODEL = dg.AssetKey("model")
GROUP = "batch_service"

_DESCRIPTIONS = {
    INPUT_MANIFEST: "The input list of the service: a manifest, or the objects of a folder.",
    INFERENCE_RESULTS: "One result object per input, under `infer-result/` in the output folder.",
    OUTPUT_MANIFEST: "`infer-result-0.manifest` … for every node, `infer-error-0.manifest` … where inputs failed.",
}


def service_graph(specs: NodeSpecs, env: Mapping[str, str]) -> dg.GraphDefinition:
    """ingest_manifest → map_columns → fan_out → infer_on_<spec> × nodes → write_manifests."""
    fan_out, write_manifests = fan_out_op(specs), write_manifests_op(specs)
    infer_ops = {spec.identifier: infer_op(spec) for spec in specs}

    @dg.graph(
        name=SERVICE,
        description="A model over a folder or manifest of objects, on so many compute nodes; then it stops.",
        config=config_mapping(env),
        ins={"input_data": dg.GraphIn(), "model": dg.GraphIn()},
        out={name: dg.GraphOut() for name in (*_DESCRIPTIONS, ACCOUNTED_OUTPUT)},
    )
    def steps(input_data, model):  # type: ignore[no-untyped-def]
        parameters = ingest_manifest(input_data=input_data, model=model)
        mapped = map_columns(parameters)
        shards = fan_out(mapped)
        nodes = {
            identifier: getattr(shards, identifier).map(infer).collect() for identifier, infer in infer_ops.items()
        }
        published = write_manifests(parameters=mapped, **nodes)
        return {
            INPUT_MANIFEST: parameters,
            INFERENCE_RESULTS: getattr(published, INFERENCE_RESULTS),
            OUTPUT_MANIFEST: getattr(published, OUTPUT_MANIFEST),
            ACCOUNTED_OUTPUT: getattr(published, ACCOUNTED_OUTPUT),
        }

    return steps


def service_assets(specs: NodeSpecs, env: Mapping[str, str]) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The upstream assets, which others make, and those of the service."""
    manifest, results = dg.AssetKey(INPUT_MANIFEST), dg.AssetKey(INFERENCE_RESULTS)
    service = dg.AssetsDefinition.from_graph(
        service_graph(specs, env),
        keys_by_input_name={"input_data": INPUT_DATA, "model": MODEL},
        keys_by_output_name={name: dg.AssetKey(name) for name in _DESCRIPTIONS},
        internal_asset_deps={
            INPUT_MANIFEST: {INPUT_DATA},
            INFERENCE_RESULTS: {manifest, MODEL},
            OUTPUT_MANIFEST: {results},
        },
        partitions_def=services_partitions,
        group_name=GROUP,
        descriptions_by_output_name=_DESCRIPTIONS,
        check_specs=[
            dg.AssetCheckSpec(
                ACCOUNTED,
                asset=OUTPUT_MANIFEST,
                blocking=True,
                description="inputs = succeeded + failed, as storage says.",
            )
        ],
    )
    return [
        dg.AssetSpec(INPUT_DATA, group_name=GROUP, description="The objects of the input folder, or of the manifest."),
        dg.AssetSpec(MODEL, group_name=GROUP, description="The model packages of the registry."),
        service,
    ]
