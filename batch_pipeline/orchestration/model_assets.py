"""The models of the registry in the catalog: an asset with a partition a version, a check, a job and a sensor."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from batch_pipeline.orchestration.declaration import GROUP
from batch_pipeline.orchestration.failures import as_failures
from batch_pipeline.orchestration.graph import MODEL
from batch_pipeline.orchestration.model_metadata import VALID, of_model, validity
from batch_pipeline.orchestration.names import TAG_MODEL, VALIDATE
from batch_pipeline.orchestration.requests import as_tick_failures
from batch_pipeline.orchestration.resources import IO_MANAGER, DeploymentResource
from batch_pipeline.settings import Settings

PARTITIONS = dg.DynamicPartitionsDefinition(name="model_version")
"""`name:version`. The set is the instance's, so only one code location of it may have these definitions."""
TAG_REGISTRY = "batch_pipeline/registry"
"""By which all that belongs to the registry can be selected."""
SECONDS = 60
MOST = 50
"""Runs that one tick asks for: Dagster makes them one after the other."""

_DESCRIPTION = """The model packages of the registry (`BATCH_PIPELINE_MODELS`): one partition is one `name:version`.

To materialize a partition is to look at the package as it is now: whether it is complete, the ONNX file loads, and
the requests and responses of its APIs bind to it. A service uses a version that is normal, whether it has been looked
at here or not. The sensor `model_versions` looks at new and changed packages by itself."""


def model_registry_definitions(env: Mapping[str, str]) -> dg.Definitions:
    """The asset `batch_pipeline/model`, the job `validate_models`, the sensor `model_versions`. Needs our resources.

    Nothing is contacted. Raises `InvalidSettings`.
    """
    registry = Settings.from_environment(env).models
    model = _model(registry.uri if registry is not None else None)
    job = dg.define_asset_job(
        VALIDATE,
        selection=dg.AssetSelection.assets(MODEL),
        executor_def=dg.in_process_executor,
        tags={TAG_REGISTRY: "models", "dagster/kind/onnx": ""},
        run_tags={TAG_REGISTRY: "models"},
        description="Look at model versions of the registry as they are now, one a partition.",
    )
    return dg.Definitions(assets=[model], jobs=[job], sensors=[_sensor(job)])


def look_at_models(definitions: dg.Definitions, instance: dg.DagsterInstance, refs: Sequence[str]) -> None:
    """Materialize these versions here and now, as the sensor would have it done. Raises what a run raises."""
    job = definitions.resolve_job_def(VALIDATE)
    instance.add_dynamic_partitions(PARTITIONS.name or "", list(refs))
    for ref in refs:
        job.execute_in_process(instance=instance, partition_key=ref)


def _model(registry: str | None) -> dg.AssetsDefinition:
    @dg.asset(
        key=MODEL,
        description=_DESCRIPTION,
        group_name=GROUP,
        kinds={"onnx"},
        op_tags={"dagster/kind/onnx": ""},
        tags={TAG_REGISTRY: "models"},
        io_manager_key=IO_MANAGER,
        partitions_def=PARTITIONS,
        metadata={"dagster/uri": registry} if registry is not None else {},
        check_specs=[
            dg.AssetCheckSpec(
                VALID,
                asset=MODEL,
                description="The version is normal: complete, it loads, and its APIs bind. Services refuse any other.",
            )
        ],
    )
    def model(
        context: dg.AssetExecutionContext, batch_pipeline_deployment: DeploymentResource
    ) -> Iterator[dg.MaterializeResult[Any]]:
        ref = context.partition_key
        with as_failures(context.op_execution_context):
            registry = batch_pipeline_deployment.get().registry
            # First, so that what changes while the package is read is looked at again.
            stamp = registry.stamps(ref).get(ref)
            found = registry.show(ref)
        context.log.info(f"{ref} is {found.status}" + "".join(f"; {reason}" for reason in found.reasons))
        yield dg.MaterializeResult(
            metadata=of_model(found),
            data_version=dg.DataVersion(stamp) if stamp is not None else None,
            check_results=[validity(found)],
        )

    return model


def _sensor(job: Any) -> dg.SensorDefinition:
    @dg.sensor(
        name="model_versions",
        job=job,
        minimum_interval_seconds=SECONDS,
        tags={"trigger": "registry"},
        description="Lists the registry: gives each new version a partition of `model`, takes that of a deleted one "
        "away, and has each package that is new or was changed looked at.",
    )
    def model_versions(
        context: dg.SensorEvaluationContext, batch_pipeline_deployment: DeploymentResource
    ) -> dg.SensorResult:
        with as_tick_failures():
            stamps = batch_pipeline_deployment.in_tick().registry.stamps()
        # Dagster takes no such partition.
        stamps = {ref: stamp for ref, stamp in stamps.items() if "..." not in ref}
        known = set(context.instance.get_dynamic_partitions(PARTITIONS.name or ""))
        requests = _requests(context.instance, stamps, context.cursor or "")
        nothing = dg.SkipReason(f"{len(stamps)} versions in the registry, and none new or changed")
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else nothing,
            dynamic_partitions_requests=[
                PARTITIONS.build_add_request(sorted(stamps.keys() - known)),
                PARTITIONS.build_delete_request(sorted(known - stamps.keys())),
            ],
            cursor=requests[-1].partition_key if requests else context.cursor,
        )

    return model_versions


def _requests(instance: dg.DagsterInstance, stamps: Mapping[str, str], cursor: str) -> list[dg.RunRequest]:
    """A run for each version that was last looked at in another state, or never.

    What was seen is in the event log and nowhere else: the run key names the state and the look before it, so that a
    tick that is repeated asks for the same runs, and a package that is changed back is looked at again. The cursor is
    the last version asked for: they take turns, and one whose run failed, which is not asked for twice, stops no other.
    """
    storage, kind = instance.event_log_storage, dg.DagsterEventType.ASSET_MATERIALIZATION
    seen = storage.get_latest_tags_by_partition(MODEL, kind, [DATA_VERSION_TAG])
    changed = [ref for ref in stamps if seen.get(ref, {}).get(DATA_VERSION_TAG) != stamps[ref]]
    turn = sorted(changed, key=lambda ref: (ref <= cursor, ref))[:MOST]
    looks = storage.get_latest_storage_id_by_partition(MODEL, kind, set(turn)) if turn else {}
    return [
        dg.RunRequest(
            run_key=f"{ref} {stamps[ref]} after {looks.get(ref, 0)}", partition_key=ref, tags={TAG_MODEL: ref}
        )
        for ref in turn
    ]
