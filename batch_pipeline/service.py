"""A service from parameters to manifests, step by step: functions that any executor may call anywhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batch_pipeline import environment, output_folder, planning, publishing
from batch_pipeline.deployment import Deployment
from batch_pipeline.errors import InputMissing, ModelRefused, NodeFailed, Refused
from batch_pipeline.inputs import InputList
from batch_pipeline.layout import OutputLayout
from batch_pipeline.ledger import LedgerWriter
from batch_pipeline.locations import Location, parse_location
from batch_pipeline.node.job import NodeJob, NodeReport, Progress
from batch_pipeline.output_folder import ServiceRecord
from batch_pipeline.ownership import Heartbeat, Owner, check_free
from batch_pipeline.ownership import claim as claim_folder
from batch_pipeline.ownership import release as release_folder
from batch_pipeline.parameters import CsvOptions, EnvReference, ServiceParameters
from batch_pipeline.publishing import Summary

if TYPE_CHECKING:
    import polars as pl

    from batch_pipeline.models.binding import Binding
    from batch_pipeline.models.mapping import ColumnMapping
    from batch_pipeline.models.registry import ModelVersion
    from batch_pipeline.node_specs import NodeSpec

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class CheckedService:
    """Parameters that keep every rule, and what they name."""

    parameters: ServiceParameters
    model: ModelVersion
    binding: Binding
    mapping: ColumnMapping | None
    spec: NodeSpec
    record: ServiceRecord | None
    """What the output folder keeps of an earlier attempt."""


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


@dataclass(frozen=True)
class MappingReport:
    """The model and the mapping that the nodes will use."""

    model: str
    model_sha256: str
    model_digest: str
    request_path: str
    rule: dict[str, Any] | None


@dataclass(frozen=True)
class Shard:
    """A small reference to one node's share of the plan in storage; all that a node step needs to be given."""

    service: str
    node: int
    node_count: int
    spec: str
    output: Location
    attempt: int
    units: int
    environment: dict[str, str | dict[str, str]] = field(default_factory=dict)


def check(parameters: ServiceParameters, deployment: Deployment) -> CheckedService:
    """Applies every rule that needs storage or the model. Writes nothing; raises Refused."""
    storage, layout = deployment.storage, OutputLayout(parameters.output)
    model = deployment.registry.resolve(parameters.model)
    binding = model.bind(parameters.request_path)
    mapping = _mapping(parameters, model, binding)
    spec = deployment.node_specs.check(
        parameters.node_spec,
        automatic_learning=model.automatic_learning,
        granted=deployment.settings.granted_specs,
    )
    environment.resolve(parameters.environment)
    record = output_folder.inspect(storage, layout, parameters.name or "")
    check_free(storage, layout, parameters.name or "")
    inputs = input_list(parameters, deployment)
    checked = CheckedService(parameters, model, binding, mapping, spec, record)
    if record is None:
        if next(inputs.read(), None) is None:
            planning.survey(inputs)  # raises, with the reason
    elif parameters.if_changed == "refuse":
        output_folder.refuse_changes(layout, record, made_from(checked, planning.survey(inputs).digest))
    return checked


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
        with Heartbeat(storage, layout, owner).running():
            return _ingest(checked, deployment)
    except Refused:
        release_folder(storage, layout, owner.run_id)
        raise


def _ingest(checked: CheckedService, deployment: Deployment) -> InputReport:
    parameters, storage = checked.parameters, deployment.storage
    layout = OutputLayout(parameters.output)
    found = planning.survey(input_list(parameters, deployment))
    made = made_from(checked, found.digest)
    record = output_folder.inspect(storage, layout, parameters.name or "")
    if record is not None and record.made_from != made:
        if parameters.if_changed == "refuse":
            output_folder.refuse_changes(layout, record, made)
        output_folder.empty(storage, layout, record)
        record = None
    if record is not None and publishing.is_finished(storage, layout, parameters):
        return _input_report(found.table, record.attempt, finished=True)
    attempt = record.attempt + 1 if record else 1
    if record is None:
        # The record comes first: whatever follows it belongs to this service.
        output_folder.save_record(storage, layout, ServiceRecord(parameters.name or "", made, attempt))
        planning.save_table(storage, layout.inputs, found.table)
    else:
        publishing.unpublish(storage, layout, parameters.node_count)
        output_folder.save_record(storage, layout, replace(record, attempt=attempt))
        planning.renew_offsets(storage, layout, found.table)
    return _input_report(found.table, attempt, finished=False)


def map_columns(parameters: ServiceParameters, deployment: Deployment) -> MappingReport:
    """Resolves the model and the rule by which CSV columns reach its request. Raises Refused."""
    model = deployment.registry.resolve(parameters.model)
    mapping = _mapping(parameters, model, model.bind(parameters.request_path))
    rule = mapping.rule() if mapping is not None else None
    return MappingReport(model.ref, model.sha256 or "", model.digest or "", parameters.request_path, rule)


def plan(parameters: ServiceParameters, deployment: Deployment, owner: Owner) -> tuple[Shard, ...]:
    """Divides the inputs over the nodes and writes the plan down; no shard where the service has finished before.

    An earlier attempt's division is kept, so that what it finished is found again.
    """
    storage, layout = deployment.storage, OutputLayout(parameters.output)
    record = _own_record(deployment, parameters)
    if publishing.is_finished(storage, layout, parameters):
        return ()
    with _owned(deployment, layout, owner):
        mapped = map_columns(parameters, deployment)
        inputs = input_list(parameters, deployment)
        etag = storage.head(inputs.location).etag if inputs.is_manifest else None
        shards = planning.divide_over_nodes(
            storage,
            layout,
            replace(inputs, etag=etag),
            node_count=parameters.node_count,
            min_part=deployment.settings.min_part_bytes,
            may_cut=mapped.rule is not None and not parameters.csv.multiline and parameters.node_count > 1,
        )
        plan = planning.Plan(
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
        )
        planning.save_plan(storage, layout, plan)
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
        )
        for shard in shards
    )


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

    Raises NodeFailed where the node can't work at all, OwnershipLost where another run took over.
    """
    began = time.monotonic()
    storage, layout = deployment.storage, OutputLayout(shard.output)
    variables = {
        name: EnvReference(**value) if isinstance(value, dict) else value for name, value in shard.environment.items()
    }
    with _owned(deployment, layout, owner) as heartbeat, environment.applied(variables):
        plan = planning.load_plan(storage, layout)
        with LedgerWriter(storage, layout, attempt=plan.attempt, node=shard.node) as ledger:
            progress, sample = _run_node(
                shard,
                plan,
                deployment,
                ledger,
                on_progress,
                threads=threads_of(deployment.node_specs[shard.spec], at_once),
                stopping=lambda: heartbeat.lost or stopping(),
            )
        heartbeat.check()
    return NodeReport(shard.node, progress, time.monotonic() - began, sample)


def publish(parameters: ServiceParameters, deployment: Deployment, owner: Owner) -> Summary:
    """Proves from storage that every input is accounted for, writes the manifests, and gives the folder back.

    A share of failures above the threshold is a summary whose state is `failed`. Raises AccountingFailed.
    """
    storage, layout = deployment.storage, OutputLayout(parameters.output)
    stored = publishing.load_summary(storage, layout)
    if stored is not None and publishing.is_finished(storage, layout, parameters):
        summary = replace(stored, state="finished", message="", already_finished=True)
        release_folder(storage, layout, owner.run_id)
        return summary
    with _owned(deployment, layout, owner) as heartbeat:
        summary = publishing.publish(input_list(parameters, deployment), layout, parameters, heartbeat.check)
    release_folder(storage, layout, owner.run_id)
    return summary


def release(output: Location, deployment: Deployment, run_id: str) -> None:
    """Gives the output folder back if this run holds it."""
    release_folder(deployment.storage, OutputLayout(output), run_id)


@contextmanager
def owned(output: Location, deployment: Deployment, owner: Owner) -> Iterator[Heartbeat]:
    """Keeps a run's lock alive for as long as the block runs, between the steps too. Claims nothing."""
    with Heartbeat(deployment.storage, OutputLayout(output), owner).running() as heartbeat:
        yield heartbeat


def progress(parameters: ServiceParameters, deployment: Deployment) -> Progress:
    """How far the nodes of a service are, all together; all zero before it has a plan in its output folder."""
    return publishing.progress(deployment.storage, OutputLayout(parameters.output), parameters.name or "")


def delete_results(output: Location, service: str, deployment: Deployment) -> int:
    """Removes the service's own objects from its output folder, and no others; returns how many there were."""
    storage, layout = deployment.storage, OutputLayout(output)
    record = output_folder.load_record(storage, layout)
    if record is None or record.service != service:
        return 0
    check_free(storage, layout, service)
    return output_folder.empty(storage, layout, record)


def input_list(parameters: ServiceParameters, deployment: Deployment) -> InputList:
    return InputList(deployment.storage, parameters.input, deployment.settings.allow_local_files)


def made_from(checked: CheckedService, input_digest: str) -> dict[str, Any]:
    """What must not change when the service is run again, each as a value that can be compared and kept."""
    parameters = checked.parameters
    return {
        "model": f"{checked.model.ref} (digest {checked.model.digest})",
        "request_path": parameters.request_path,
        "mapping": checked.mapping.rule() if checked.mapping else None,
        "input list": input_digest,
        "csv": parameters.csv.model_dump(),
        "join_input": parameters.join_input,
        "node_count": parameters.node_count,
        "node_spec": parameters.node_spec,
        "environment": environment.fingerprint(parameters.environment),
    }


def _mapping(parameters: ServiceParameters, model: ModelVersion, binding: Binding) -> ColumnMapping | None:
    from batch_pipeline.models.binding import check_mapping
    from batch_pipeline.models.mapping import parse

    if binding.kind == "file":
        if parameters.mapping is not None:
            raise ModelRefused(
                f"mapping: {model.ref} takes files at {parameters.request_path}, and a mapping is "
                "for models that take JSON; leave it out"
            )
        return None
    mapping = parse(parameters.mapping, model.request_schema(parameters.request_path), header=parameters.csv.header)
    check_mapping(binding, mapping)
    return mapping


def _own_record(deployment: Deployment, parameters: ServiceParameters) -> ServiceRecord:
    layout = OutputLayout(parameters.output)
    record = output_folder.inspect(deployment.storage, layout, parameters.name or "")
    if record is None:
        raise InputMissing(
            f"{layout.output} holds no attempt of the service {parameters.name}; deploy it from the start"
        )
    return record


@contextmanager
def _owned(deployment: Deployment, layout: OutputLayout, owner: Owner) -> Iterator[Heartbeat]:
    """Holds the lock for one step: claims it where nobody holds it, as when a later run re-executes only this step."""
    storage = deployment.storage
    claim_folder(storage, layout, owner, lock_seconds=deployment.settings.lock_seconds)
    with Heartbeat(storage, layout, owner).running() as heartbeat:
        yield heartbeat


def _run_node(
    shard: Shard,
    plan: planning.Plan,
    deployment: Deployment,
    ledger: LedgerWriter,
    on_progress: OnProgress,
    *,
    threads: int,
    stopping: Callable[[], bool],
) -> tuple[Progress, tuple[dict[str, object], ...]]:
    from batch_pipeline.models.mapping import parse
    from batch_pipeline.node.run import run_node

    storage, layout = deployment.storage, OutputLayout(shard.output)
    model = deployment.registry.resolve(plan.model)
    if model.digest != plan.model_digest:
        raise NodeFailed(
            f"the model {plan.model} was replaced after the service was planned; run it again with --overwrite"
        )
    binding = model.bind(plan.request_path)
    csv = CsvOptions(**plan.csv)
    mapping = (
        parse(plan.mapping, model.request_schema(plan.request_path), header=csv.header)
        if binding.kind == "json"
        else None
    )
    table = planning.load_table(storage, layout.shard(shard.node))
    done = publishing.finished_units(storage, layout, table) if plan.attempt > 1 else set()
    share = plan.shards[shard.node]
    pairs = planning.shard_rows(table, _planned_inputs(plan, deployment), share)
    units = (unit for unit in planning.units(pairs, layout) if (unit.line, unit.part) not in done)
    base = planning.progress_before(table, done)

    def so_far(current: Progress) -> Progress:
        return replace(current, done=current.done + base.done, failed=current.failed + base.failed, units=base.units)

    def report(current: Progress) -> None:
        ledger.report(so_far(current))
        on_progress(so_far(current))

    job = NodeJob(
        units=units,
        unit_count=base.units - base.done,
        model_folder=deployment.registry.fetch(model),
        model_file=model.model_file,
        binding=binding,
        mapping=mapping,
        csv=csv,
        join_input=plan.join_input,
        threads=threads,
        providers=deployment.node_specs[shard.spec].providers,
    )
    report(Progress())
    final, sample = run_node(job, storage, deployment.share_links, ledger, report, stopping)
    report(final)
    return so_far(final), sample


def _planned_inputs(plan: planning.Plan, deployment: Deployment) -> InputList:
    """The input list as the plan has it."""
    location = parse_location(plan.input_path, allow_local=True)
    return InputList(deployment.storage, location, deployment.settings.allow_local_files, plan.input_etag)


def threads_of(spec: NodeSpec, at_once: int = 1) -> int:
    """How many threads a node computes on: never more than its spec has CPUs, nor than its part of this machine's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(spec.cpu, cores // max(1, at_once)))


def _input_report(table: pl.DataFrame, attempt: int, *, finished: bool) -> InputReport:
    known = table["size"].null_count() == 0
    return InputReport(
        inputs=table.height,
        bad_lines=int(table["bad"].sum()),
        repeated=table.height - table["duplicate_of"].null_count(),
        size=int(table["size"].sum()) if known else None,
        attempt=attempt,
        finished=finished,
    )
