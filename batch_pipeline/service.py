"""A service from parameters to manifests, step by step: functions that any executor may call anywhere."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeGuard

from batch_pipeline import environment, output_folder, publishing
from batch_pipeline.checking import CheckedService, bound, check, chosen, input_list, made_from, mapping_of
from batch_pipeline.deployment import Deployment
from batch_pipeline.errors import InputMissing, ModelRefused, ObjectNotFound, RecordDamaged, Refused
from batch_pipeline.inference import OnProgress, run_share, threads_of
from batch_pipeline.layout import OutputLayout
from batch_pipeline.ledger import LedgerWriter
from batch_pipeline.locations import Location
from batch_pipeline.node.job import NodeReport, Progress
from batch_pipeline.output_folder import ServiceRecord
from batch_pipeline.ownership import Heartbeat, Owner, ProcessIdentity
from batch_pipeline.ownership import claim as claim_folder
from batch_pipeline.ownership import release as release_folder
from batch_pipeline.parameters import EnvReference, ServiceParameters
from batch_pipeline.plan import Plan, load_plan, save_plan, save_table, save_tables
from batch_pipeline.planning import divide_over_nodes, is_divided
from batch_pipeline.scratch import full_disk_named
from batch_pipeline.shard import Shard
from batch_pipeline.summary import Summary, is_finished, load_summary, progress_of
from batch_pipeline.survey import Survey

if TYPE_CHECKING:
    from batch_pipeline.models.schema import Schema
    from batch_pipeline.storage import Storage

__all__ = [
    "CheckedService",
    "InputReport",
    "MappingReport",
    "Shard",
    "Summary",
    "check",
    "delete_results",
    "infer",
    "ingest",
    "made_with",
    "map_columns",
    "owned",
    "plan",
    "progress",
    "publish",
    "release",
]


@dataclass(frozen=True)
class InputReport:
    """What `ingest` found."""

    inputs: int
    bad_lines: int
    repeated: int
    size: int | None
    """Bytes of all inputs, None where not known."""
    attempt: int
    finished: bool
    """An earlier attempt finished everything; nothing is left to do."""
    made_from: str
    """The fingerprint of what the service is made from: the later steps are to go by it (`ServiceParameters.of`)."""


@dataclass(frozen=True)
class MappingReport:
    """The model and the mapping that the nodes will use."""

    model: str
    model_sha256: str
    model_digest: str
    request_path: str
    rule: dict[str, Any] | None


@full_disk_named()
def ingest(
    parameters: ServiceParameters,
    deployment: Deployment,
    owner: Owner,
    *,
    is_gone: Callable[[str], bool] = lambda _: False,
) -> InputReport:
    """Checks everything, takes the output folder, reads the input list and writes down what the service is made from.

    Raises Refused, with the folder given back and nothing of the service written or removed.
    """
    checked = check(parameters, deployment)
    storage, layout = deployment.storage, OutputLayout(parameters.output)
    claim_folder(storage, layout, owner, lock_seconds=deployment.settings.lock_seconds, is_gone=is_gone)
    try:
        with _beating(deployment, layout, owner) as (held, _):
            return _ingest(checked, held, owner)
    except (Refused, RecordDamaged):
        release(parameters.output, deployment, owner.run_id)
        raise


def _ingest(checked: CheckedService, deployment: Deployment, owner: Owner) -> InputReport:
    parameters, storage = checked.parameters, deployment.storage
    layout = OutputLayout(parameters.output)
    with Survey(input_list(parameters, deployment)) as found:
        made = made_from(checked, found.digest)
        record = output_folder.inspect(storage, layout, parameters.full_name)
        if record is not None and record.made_from != made:
            if parameters.if_changed == "refuse":
                output_folder.refuse_changes(layout, record, made)
            output_folder.empty(storage, layout, record)
            record = None
        if record is not None and is_finished(storage, layout, parameters):
            return _input_report(found, record, finished=True)
        attempt = record.attempt + 1 if record else 1
        if record is None:
            # The record comes first: whatever follows it belongs to this service.
            record = ServiceRecord(parameters.full_name, made, attempt, owner.run_id)
            output_folder.save_record(storage, layout, record)
        else:
            record = replace(record, attempt=attempt)
            publishing.unpublish(storage, layout, parameters.node_count)
            output_folder.drop_unfinished(storage, layout)
            output_folder.save_record(storage, layout, record)
        if not storage.exists(layout.inputs):
            # Also where an attempt ended before it had written its table: it did nothing else either.
            save_tables(storage, layout.inputs, found.tables())
        save_table(storage, layout.marks, found.marks)
        return _input_report(found, record, finished=False)


def map_columns(parameters: ServiceParameters, deployment: Deployment) -> MappingReport:
    """Resolves the model and the rule by which CSV columns reach its request.

    Raises Refused, or ServiceMadeOver where the folder is no longer made from these.
    """
    record = _own_record(deployment, parameters)
    model = deployment.registry.resolve(parameters.model)
    mapping = mapping_of(parameters, model, model.bind(parameters.request_path))
    rule = mapping.rule() if mapping is not None else None
    _refuse_made_over(parameters, record, bound(model, rule))
    return MappingReport(model.ref, model.sha256 or "", model.digest or "", parameters.request_path, rule)


@full_disk_named()
def plan(parameters: ServiceParameters, deployment: Deployment, owner: Owner) -> tuple[Shard, ...]:
    """Divides the inputs over the nodes and writes the plan down; no shard where the service has finished before.

    An earlier attempt's division is kept, so that what it finished is found again.
    """
    storage, layout = deployment.storage, OutputLayout(parameters.output)
    _refuse_made_over(parameters, _own_record(deployment, parameters))
    if is_finished(storage, layout, parameters):
        return ()
    with _owned(deployment, layout, owner) as (held, _):
        storage = held.storage
        record, mapped = _own_record(deployment, parameters), map_columns(parameters, deployment)
        inputs = input_list(parameters, deployment)
        etag = storage.head(inputs.location).etag if inputs.is_manifest else None
        division = _division(storage, layout, record, parameters.node_count)
        shards = divide_over_nodes(
            storage,
            layout,
            replace(inputs, etag=etag),
            node_count=parameters.node_count,
            min_part=deployment.settings.min_part_bytes,
            may_cut=mapped.rule is not None and not parameters.csv.multiline and parameters.node_count > 1,
        )
        plan = Plan(
            service=record.service,
            model=mapped.model,
            model_digest=mapped.model_digest,
            request_path=parameters.request_path,
            mapping=parameters.mapping,
            csv=parameters.csv.model_dump(),
            join_input=parameters.join_input,
            input_path=parameters.input_path,
            input_etag=etag,
            inputs=sum(shard.inputs for shard in shards),
            shards=shards,
            started=time.time(),
            attempt=record.attempt,
            made_from=record.fingerprint,
            model_sha256=mapped.model_sha256,
            division=division,
        )
        save_plan(storage, layout, plan)
    variables = parameters.to_config()["environment"]
    return tuple(
        Shard(
            record.service,
            shard.node,
            parameters.node_count,
            parameters.node_spec,
            parameters.output,
            record.attempt,
            shard.units,
            variables,
            shard.inputs,
            shard.size,
            record.fingerprint,
        )
        for shard in shards
    )


@full_disk_named()
def infer(
    shard: Shard,
    deployment: Deployment,
    owner: Owner,
    on_progress: OnProgress = lambda _: None,
    *,
    at_once: int = 1,
    stopping: Callable[[], bool] = lambda: False,
) -> NodeReport:
    """Does one node's share, less what earlier attempts finished. `at_once` nodes share this machine's cores.

    Raises NodeFailed where the node can't work at all, OwnershipLost where another run took over, ServiceMadeOver
    where one has made something else of the folder since.
    """
    began = time.monotonic()
    layout = OutputLayout(shard.output)
    variables = {
        name: EnvReference(**value) if isinstance(value, dict) else value for name, value in shard.environment.items()
    }
    with _owned(deployment, layout, owner) as (held, heartbeat), environment.applied(variables):
        storage, plan = held.storage, _plan(held, layout)
        if (plan.made_from, len(plan.shards)) != (shard.made_from, shard.node_count):
            raise output_folder.made_over(layout, output_folder.load_record(storage, layout))
        with LedgerWriter(storage, layout, attempt=plan.attempt, node=shard.node, division=plan.division) as ledger:
            progress, sample = run_share(
                shard,
                plan,
                held,
                ledger,
                on_progress,
                threads=threads_of(deployment.node_specs[shard.spec], at_once),
                stopping=lambda: heartbeat.lost or stopping(),
            )
        heartbeat.check()
    return NodeReport(shard.node, progress, time.monotonic() - began, sample)


@full_disk_named()
def publish(parameters: ServiceParameters, deployment: Deployment, owner: Owner) -> Summary:
    """Proves from storage that every input is accounted for, writes the manifests, and gives the folder back.

    A share of failures above the threshold is a summary whose state is `failed`. Raises AccountingFailed, and
    ServiceMadeOver where the folder's plan is not that of these parameters.
    """
    storage, layout = deployment.storage, OutputLayout(parameters.output)
    # The registry is not asked: it may have lost the model since.
    _refuse_made_over(parameters, _own_record(deployment, parameters))
    stored = load_summary(storage, layout)
    if stored is not None and is_finished(storage, layout, parameters):
        summary = replace(stored, already_finished=True)
        release(parameters.output, deployment, owner.run_id)
        return summary
    response = _response_schema(parameters, deployment)
    with _owned(deployment, layout, owner) as (held, heartbeat):
        inputs = input_list(parameters, held)
        summary = publishing.publish(inputs, layout, parameters, heartbeat.check, response=response)
    release(parameters.output, deployment, owner.run_id)
    return summary


def made_with(parameters: ServiceParameters, deployment: Deployment) -> MappingReport:
    """The model and the mapping that the results were made with, as the output folder says."""
    record, plan = _own_record(deployment, parameters), _plan(deployment, OutputLayout(parameters.output))
    return MappingReport(
        plan.model, plan.model_sha256, plan.model_digest, plan.request_path, record.made_from.get("mapping")
    )


def release(output: Location, deployment: Deployment, run_id: str) -> None:
    """Gives the output folder back if this run holds it."""
    release_folder(deployment.storage, OutputLayout(output), run_id, lock_seconds=deployment.settings.lock_seconds)


@contextmanager
def owned(output: Location, deployment: Deployment, owner: Owner) -> Iterator[Heartbeat]:
    """Keeps a run's lock alive for as long as the block runs, between the steps too. Claims nothing."""
    with _beating(deployment, OutputLayout(output), owner) as (_, heartbeat):
        yield heartbeat


def progress(parameters: ServiceParameters, deployment: Deployment) -> Progress:
    """How far the nodes of a service are, all together; all zero before it has a plan in its output folder."""
    return progress_of(deployment.storage, OutputLayout(parameters.output), parameters.full_name)


def delete_results(
    output: Location, service: str, deployment: Deployment, *, is_gone: Callable[[str], bool] = lambda _: False
) -> int:
    """Removes the service's own objects from its output folder, and no others; returns how many there were.

    Takes the folder for as long as that lasts: waits, and raises, as `ownership.claim` does.
    """
    storage, layout = deployment.storage, OutputLayout(output)
    if not _is_of(output_folder.load_record(storage, layout), service):
        return 0
    owner = Owner(f"deletion-{secrets.token_hex(4)}", service, ProcessIdentity.current())
    claim_folder(storage, layout, owner, lock_seconds=deployment.settings.lock_seconds, is_gone=is_gone)
    try:
        with _beating(deployment, layout, owner) as (held, _):
            # Again, as it may have been deleted or made over while the holder was waited for.
            record = output_folder.load_record(held.storage, layout)
            return output_folder.empty(held.storage, layout, record) if _is_of(record, service) else 0
    finally:
        release(output, deployment, owner.run_id)


def _is_of(record: ServiceRecord | None, service: str) -> TypeGuard[ServiceRecord]:
    return record is not None and record.service == service


def _response_schema(parameters: ServiceParameters, deployment: Deployment) -> Schema | None:
    """What the model's API says of its answers; None also where the registry has lost the model since."""
    try:
        return deployment.registry.resolve(parameters.model).api(parameters.request_path).response_schema
    except ModelRefused:
        # The answers are there, and to look at them closely is no reason to leave them unpublished.
        return None


def _own_record(deployment: Deployment, parameters: ServiceParameters) -> ServiceRecord:
    layout = OutputLayout(parameters.output)
    record = output_folder.inspect(deployment.storage, layout, parameters.full_name)
    if record is None:
        raise InputMissing(
            f"{layout.output} holds no attempt of the service {parameters.full_name}; deploy it from the start"
        )
    return record


def _plan(deployment: Deployment, layout: OutputLayout) -> Plan:
    """Raises ServiceMadeOver where there is none: another run has started over. Raises RecordDamaged."""
    try:
        return load_plan(deployment.storage, layout)
    except ObjectNotFound:
        record = output_folder.load_record(deployment.storage, layout)
        raise output_folder.made_over(layout, record) from None


def _division(storage: Storage, layout: OutputLayout, record: ServiceRecord, node_count: int) -> str:
    """The earlier attempt's where that is kept. Else a new one, by which none of the records that are there counts."""
    try:
        earlier = load_plan(storage, layout)
    except ObjectNotFound:
        return secrets.token_hex(8)
    if earlier.made_from == record.fingerprint and is_divided(storage, layout, node_count):
        return earlier.division
    # Before another division is there: an attempt that ends in between must not take that for the earlier one.
    storage.delete([layout.plan])
    return secrets.token_hex(8)


def _refuse_made_over(
    parameters: ServiceParameters, record: ServiceRecord, registered: Mapping[str, Any] = MappingProxyType({})
) -> None:
    held = {**registered, **chosen(parameters)}
    output_folder.refuse_made_over(OutputLayout(parameters.output), record, held, parameters.made_from)


@contextmanager
def _owned(deployment: Deployment, layout: OutputLayout, owner: Owner) -> Iterator[tuple[Deployment, Heartbeat]]:
    """Holds the lock for one step: claims it where nobody holds it, as when a later run re-executes only this step."""
    claim_folder(deployment.storage, layout, owner, lock_seconds=deployment.settings.lock_seconds)
    with _beating(deployment, layout, owner) as held:
        yield held


@contextmanager
def _beating(deployment: Deployment, layout: OutputLayout, owner: Owner) -> Iterator[tuple[Deployment, Heartbeat]]:
    """Keeps a lock alive that `owner` has, and gives a deployment whose storage changes nothing once it is lost."""
    heartbeat = Heartbeat(deployment.storage, layout, owner, lock_seconds=deployment.settings.lock_seconds)
    with heartbeat.running():
        yield deployment.guarded(heartbeat.check), heartbeat


def _input_report(found: Survey, record: ServiceRecord, *, finished: bool) -> InputReport:
    return InputReport(
        found.inputs, found.bad_lines, found.repeated, found.size, record.attempt, finished, record.fingerprint
    )
