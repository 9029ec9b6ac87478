"""Everything that can be said of a service before it starts: what its parameters name, and whether that will do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batch_pipeline import environment, output_folder
from batch_pipeline.deployment import Deployment
from batch_pipeline.errors import ModelRefused
from batch_pipeline.inputs import InputList
from batch_pipeline.layout import OutputLayout
from batch_pipeline.output_folder import ServiceRecord
from batch_pipeline.ownership import check_free
from batch_pipeline.parameters import ServiceParameters
from batch_pipeline.survey import list_digest, nothing_there

if TYPE_CHECKING:
    from batch_pipeline.models.binding import Binding
    from batch_pipeline.models.mapping import ColumnMapping
    from batch_pipeline.models.registry import ModelVersion
    from batch_pipeline.node_specs import NodeSpec


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


def check(parameters: ServiceParameters, deployment: Deployment) -> CheckedService:
    """Applies every rule that needs storage or the model. Writes nothing; raises Refused."""
    storage, layout = deployment.storage, OutputLayout(parameters.output)
    model = deployment.registry.resolve(parameters.model)
    binding = model.bind(parameters.request_path)
    mapping = mapping_of(parameters, model, binding)
    spec = deployment.node_specs.check(
        parameters.node_spec,
        automatic_learning=model.automatic_learning,
        granted=deployment.settings.granted_specs,
    )
    environment.resolve(parameters.environment)
    record = output_folder.inspect(storage, layout, parameters.full_name)
    check_free(storage, layout, parameters.full_name, lock_seconds=deployment.settings.lock_seconds)
    inputs = input_list(parameters, deployment)
    checked = CheckedService(parameters, model, binding, mapping, spec, record)
    if record is None:
        if next(inputs.read(), None) is None:
            raise nothing_there(inputs)
    elif parameters.if_changed == "refuse":
        output_folder.refuse_changes(layout, record, made_from(checked, list_digest(inputs)))
    return checked


def input_list(parameters: ServiceParameters, deployment: Deployment) -> InputList:
    return InputList(deployment.storage, parameters.input, deployment.settings.allow_local_files)


def made_from(checked: CheckedService, input_digest: str) -> dict[str, Any]:
    """What must not change when the service is run again, each as a value that can be compared and kept."""
    mapping = checked.mapping.rule() if checked.mapping else None
    return {**bound(checked.model, mapping), "input list": input_digest, **chosen(checked.parameters)}


def bound(model: ModelVersion, mapping: dict[str, Any] | None) -> dict[str, Any]:
    """What the registry says of it."""
    return {"model": f"{model.ref} (digest {model.digest})", "mapping": mapping}


def chosen(parameters: ServiceParameters) -> dict[str, Any]:
    """What the parameters say by themselves."""
    return {
        "request_path": parameters.request_path,
        "csv": parameters.csv.model_dump(),
        "join_input": parameters.join_input,
        "node_count": parameters.node_count,
        "node_spec": parameters.node_spec,
        "environment": environment.fingerprint(parameters.environment),
    }


def mapping_of(parameters: ServiceParameters, model: ModelVersion, binding: Binding) -> ColumnMapping | None:
    from batch_pipeline.models.binder import check_mapping
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
