"""Run config: the flat object of a service's parameters, shown in the Launchpad and checked before a run exists."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

import dagster as dg
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from batch_pipeline.errors import InvalidParameters, Problem, Refused
from batch_pipeline.orchestration.names import SERVICE
from batch_pipeline.parameters import ServiceParameters, parse_parameters
from batch_pipeline.settings import Settings


class ParametersRefused(dg.DagsterError):
    """Parameters that break a rule, told to Dagster: the launch is refused with this message and no other."""


def config_schema() -> dict[str, dg.Field]:
    """The parameters as Dagster config fields."""
    return _fields(ServiceParameters)


def config_mapping(env: Mapping[str, str]) -> dg.ConfigMapping:
    """Hand the parameters to the graph's first op, which is the only one with config."""

    def to_first_op(config: Mapping[str, Any]) -> dict[str, Any]:
        try:
            parse_parameters(given(config), settings=Settings.from_environment(env))
        except Refused as error:
            raise ParametersRefused(error.message) from None
        return {"ingest_manifest": {"config": dict(config)}}

    return dg.ConfigMapping(config_fn=to_first_op, config_schema=config_schema())


def given(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what stands for 'not given'."""
    return {key: value for key, value in config.items() if value is not None}


def named_parameters(config: Mapping[str, Any], name: str, settings: Settings) -> ServiceParameters:
    """The parameters of the service `name`. Raises `InvalidParameters`, also where the config names another."""
    parameters = given(config)
    if parameters.setdefault("name", name) != name:
        raise InvalidParameters((Problem("name", f"is {parameters['name']!r}, but the partition is {name!r}"),))
    return parse_parameters(parameters, settings=settings)


def to_run_config(parameters: ServiceParameters) -> dict[str, Any]:
    """The run config of a service. Its name is the partition key, and is not repeated."""
    config = parameters.to_config()
    config.pop("name", None)
    return {"ops": {SERVICE: {"config": config}}}


def from_run_config(run_config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The parameters that a run was launched with, or None for a run of something else."""
    config = run_config.get("ops", {}).get(SERVICE, {}).get("config")
    return dict(config) if isinstance(config, Mapping) else None


def _fields(model: type[BaseModel]) -> dict[str, dg.Field]:
    return {name: _field(name, field) for name, field in model.model_fields.items()}


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
