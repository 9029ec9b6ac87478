"""Run config: the flat object of a service's parameters, shown in the Launchpad and checked before a run exists."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

import dagster as dg
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from batch_pipeline.errors import InvalidParameters, Problem, Refused
from batch_pipeline.orchestration.declaration import AD_HOC, Declaration
from batch_pipeline.orchestration.names import SERVICE, full_name
from batch_pipeline.parameters import ServiceParameters, parse_parameters
from batch_pipeline.settings import Settings


class ParametersRefused(dg.DagsterError):
    """Parameters that break a rule, told to Dagster: the launch is refused with this message and no other."""


def config_schema(declaration: Declaration = AD_HOC) -> dg.Field:
    """The parameters as Dagster config fields. What a template gives need not be given again.

    All may be left out together: a service that ran before has its recorded ones.
    """
    return dg.Field(_fields(ServiceParameters, declaration.template), is_required=False)


def config_mapping(declaration: Declaration, env: Mapping[str, str]) -> dg.ConfigMapping:
    """Hand the parameters to the graph's first op, which is the only one with config.

    What the run's config leaves to the template, or to the record, is filled in by that op, which knows the service's
    name.
    """

    def to_first_op(config: Mapping[str, Any]) -> dict[str, Any]:
        parameters = given(config)
        if declaration.template is None and parameters:
            try:
                parse_parameters(parameters, settings=Settings.from_environment(env))
            except Refused as error:
                raise ParametersRefused(error.message) from None
        template = None if declaration.template is None else dict(declaration.template)
        return {
            "ingest_manifest": {
                "config": {"declaration": declaration.name, "template": template, "parameters": parameters}
            }
        }

    return dg.ConfigMapping(config_fn=to_first_op, config_schema=config_schema(declaration))


def given(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what stands for 'not given'."""
    return {key: value for key, value in config.items() if value is not None}


def named_parameters(
    config: Mapping[str, Any], name: str, settings: Settings, *, declaration: str = SERVICE
) -> ServiceParameters:
    """The parameters of the service `name`. Raises `InvalidParameters`, also where the config names another."""
    parameters = given(config)
    if parameters.setdefault("name", name) != name:
        raise InvalidParameters((Problem("name", f"is {parameters['name']!r}, but the partition is {name!r}"),))
    parsed = parse_parameters(parameters, settings=settings)
    return parsed if declaration == SERVICE else parsed.called(full_name(declaration, name))


def to_run_config(parameters: Mapping[str, Any], declaration: str = SERVICE) -> dict[str, Any]:
    """The run config of a service. Its name is the partition key, and is not repeated."""
    config = {key: value for key, value in parameters.items() if key != "name"}
    return {"ops": {declaration: {"config": config}}}


def from_run_config(run_config: Mapping[str, Any], declaration: str = SERVICE) -> dict[str, Any] | None:
    """The parameters that a run was launched with, or None for a run of something else."""
    config = run_config.get("ops", {}).get(declaration, {}).get("config")
    return dict(config) if isinstance(config, Mapping) else None


def _fields(model: type[BaseModel], template: Mapping[str, Any] | None = None) -> dict[str, dg.Field]:
    if template is None:
        return {name: _field(name, field) for name, field in model.model_fields.items()}
    return {
        name: dg.Field(_kind(name, field.annotation), is_required=False, description=field.description)
        for name, field in model.model_fields.items()
    }


def _field(name: str, field: FieldInfo) -> dg.Field:
    kind = _kind(name, field.annotation)
    default = field.get_default(call_default_factory=True, validated_data={})
    if field.is_required():
        return dg.Field(kind, description=field.description)
    if default is None or isinstance(default, BaseModel):
        return dg.Field(kind, is_required=False, description=field.description)
    return dg.Field(kind, default_value=default, description=field.description)


def _kind(name: str, annotation: Any) -> Any:
    origin = get_origin(annotation)
    if origin in {Union, types.UnionType}:
        (inner,) = [each for each in get_args(annotation) if each is not type(None)]
        return dg.Noneable(_kind(name, inner))
    if origin is Literal:
        return dg.Enum(f"batch_service_{name}", [dg.EnumValue(value) for value in get_args(annotation)])
    if origin is dict:
        # Any value is kept as it is: a typed one would replace {env: NAME} by the variable's value, and store it.
        return dict
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _fields(annotation)
    return annotation
