"""The parameters of a service: one flat object, every rule about a value, and nothing that needs storage or a model."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Collection, Mapping
from typing import Any, Literal, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from batch_pipeline import locations
from batch_pipeline.errors import InvalidLocation, InvalidParameters, LimitReached
from batch_pipeline.locations import Location
from batch_pipeline.node_specs import load_node_specs
from batch_pipeline.parameter_problems import RULES, encodable, problems, wrong
from batch_pipeline.settings import Settings
from batch_pipeline.variables import EnvReference, VariableName, VariableValue

__all__ = ["CsvOptions", "EnvReference", "ServiceParameters", "generate_name", "parse_parameters"]

NAME = re.compile(r"[A-Za-z0-9_\-\u4e00-\u9fff]{1,64}")
MASK = "********"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CsvOptions(_Strict):
    """How CSV files are read."""

    header: bool = Field(default=False, description="Skip the first line of each file; the mapping may name columns.")
    multiline: bool = Field(default=False, description="Allow quoted line ends; then a file is not divided.")
    missing: Literal["error", "nan"] = Field(
        default="error", description="An empty field of a number: a row error, or NaN."
    )


class ServiceParameters(_Strict):
    """The parameters of one service. Locations stand in their one form, `s3://bucket/key` or `file:///path`.

    Build it with `parse_parameters`, whose errors are for people.
    """

    name: str | None = Field(default=None, description="Generated when it is not given.")
    description: str = Field(default="", description="Free text, at most 100 characters.")
    model: str = Field(description="name:version, or name for the newest normal version.")
    input_path: str = Field(description="A folder (s3://bucket/prefix/) or one file ending .manifest.")
    request_path: str = Field(default="/", description="Which API of the model to call.")
    mapping: dict[str, JsonValue] | None = Field(
        default=None,
        description="The request's JSON schema with the index of a CSV column at each leaf; generated when left out.",
    )
    output_path: str = Field(description="An empty folder, or one that holds this same service's earlier attempt.")
    node_spec: str = Field(default="cpu-2u8g", description="The kind of compute node.")
    node_count: int = Field(default=1, ge=1, description="1 is stand-alone, more is distributed.")
    environment: dict[VariableName, VariableValue] = Field(
        default={},
        description="Variables set in every node, each text or {env: NAME} to read the deployment's own.",
    )
    error_threshold: float = Field(
        default=0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="The largest share of inputs (files, or CSV rows) that may fail, 0 to 1.",
    )
    if_changed: Literal["refuse", "overwrite"] = Field(
        default="refuse", description="What happens when the service was run before with something else."
    )
    csv: CsvOptions = Field(default=CsvOptions(), description="How CSV files are read.")
    join_input: bool = Field(default=False, description="Each result line of a CSV also carries the input row.")

    _full_name: str | None = PrivateAttr(default=None)
    _made_from: str | None = PrivateAttr(default=None)

    @property
    def full_name(self) -> str:
        """By which its records in storage know it: its name, after that of its declaration where it has one."""
        return self._full_name or self.name or ""

    def called(self, full_name: str) -> ServiceParameters:
        """The same parameters, of a service that is called so where those of all declarations stand together."""
        parameters = self.model_copy()
        parameters._full_name = full_name
        return parameters

    @property
    def made_from(self) -> str | None:
        """The fingerprint of what its run has made the output folder from; None before it has, or where nobody said."""
        # Those that a run of an older version handed on have no such attribute.
        made_from: str | None = getattr(self, "_made_from", None)
        return made_from

    def of(self, made_from: str) -> ServiceParameters:
        """The same parameters, for the steps that go on with what was made from this and from nothing else."""
        parameters = self.model_copy()
        parameters._made_from = made_from
        return parameters

    @property
    def input(self) -> Location:
        """The input folder, or the manifest."""
        return locations.parse_location(self.input_path, allow_local=True)

    @property
    def output(self) -> Location:
        """The output folder."""
        return locations.parse_folder(self.output_path, allow_local=True)

    @property
    def reads_manifest(self) -> bool:
        return not self.input.is_folder

    def to_config(self) -> dict[str, Any]:
        """All parameters as JSON data that `parse_parameters` takes back; `name` and `mapping` only where given."""
        config = self.model_dump(mode="json")
        return {key: value for key, value in config.items() if value is not None}

    def to_display(self) -> dict[str, Any]:
        """As `to_config`, with the literal values of `environment` masked."""
        config = self.to_config()
        config["environment"] = {
            name: MASK if isinstance(value, str) else value for name, value in config["environment"].items()
        }
        return config

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        if name is not None and not NAME.fullmatch(name):
            raise wrong("name", name)
        return name

    @field_validator("description")
    @classmethod
    def _check_description(cls, description: str) -> str:
        found = [character for character in "!<>=&\"'" if character in description]
        if found:
            raise ValueError(f"must have none of !<>=&\"', and has {' '.join(found)}")
        if len(description) > 100:
            raise ValueError(f"must have at most 100 characters, and has {len(description)}")
        if not encodable(description):
            raise wrong("description", description)
        return description

    @field_validator("model")
    @classmethod
    def _check_model(cls, model: str) -> str:
        if not re.fullmatch(r"[^\s:/\\\x00-\x1f]+(:[^\s:/\\\x00-\x1f]+)?", model) or not encodable(model):
            raise wrong("model", model)
        return model

    @field_validator("request_path", "node_spec")
    @classmethod
    def _check_text(cls, text: str, info: ValidationInfo) -> str:
        if not text or not text.isprintable():
            raise wrong(str(info.field_name), text)
        return text

    @field_validator("node_spec")
    @classmethod
    def _check_node_spec(cls, node_spec: str, info: ValidationInfo) -> str:
        settings = _settings(info)
        if settings is not None and node_spec not in (specs := load_node_specs(settings.node_specs)):
            raise ValueError(f"{node_spec!r} does not exist; node specs: {', '.join(specs.ids)}")
        return node_spec

    @field_validator("node_count")
    @classmethod
    def _check_node_count(cls, node_count: int, info: ValidationInfo) -> int:
        settings = _settings(info)
        if settings is not None and node_count > settings.max_nodes:
            raise ValueError(f"must be at most {settings.max_nodes}, the limit of this deployment, not {node_count}")
        return node_count

    @field_validator("input_path")
    @classmethod
    def _check_input(cls, text: str, info: ValidationInfo) -> str:
        location = _location(text, info)
        if location.is_folder or location.name.endswith(".manifest"):
            return location.uri
        raise ValueError(f"must be {RULES['input_path']}; did you mean {location.uri}/ ?")

    @field_validator("output_path")
    @classmethod
    def _check_output(cls, text: str, info: ValidationInfo) -> str:
        location = _location(text, info)
        location = location if location.is_folder else location.child("/")
        source = info.data.get("input_path")
        if source is not None:
            _check_apart(locations.parse_location(source, allow_local=True), location)
        return location.uri


def parse_parameters(data: Mapping[str, Any], *, settings: Settings) -> ServiceParameters:
    """The parameters, checked by every rule that needs neither storage nor model.

    Raises `InvalidParameters` with all problems at once, in the order of the table, unknown keys last.
    """
    try:
        return ServiceParameters.model_validate(dict(data), context=settings)
    except ValidationError as error:
        raise InvalidParameters(problems(error)) from None


def generate_name(existing: Collection[str]) -> str:
    """`service-` and 4 hex digits, never one of `existing`. Raises `LimitReached` when all 65,536 are taken."""
    for _ in range(64):
        name = f"service-{secrets.token_hex(2)}"
        if name not in existing:
            return name
    free = [name for number in range(0x10000) if (name := f"service-{number:04x}") not in existing]
    if not free:
        raise LimitReached("every name from service-0000 to service-ffff is taken: give the service a name")
    return secrets.choice(free)


def _settings(info: ValidationInfo) -> Settings | None:
    return cast("Settings | None", info.context)


def _location(text: str, info: ValidationInfo) -> Location:
    settings = _settings(info)
    try:
        return locations.parse_location(text, allow_local=settings is None or settings.allow_local_files)
    except InvalidLocation as error:
        raise ValueError(str(error)) from None


def _check_apart(source: Location, output: Location) -> None:
    """Results must not become inputs, nor inputs be taken for results."""
    if (source.scheme, source.bucket) != (output.scheme, output.bucket):
        return
    source_key, output_key = _resolved(source), _resolved(output)
    if source.is_folder and output_key == source_key:
        raise ValueError(f"must not be the input folder, {source}")
    if source.is_folder and output_key.startswith(source_key):
        raise ValueError(f"must not lie inside the input folder, {source}")
    if source_key.startswith(output_key):
        what = "input folder" if source.is_folder else "input manifest"
        raise ValueError(f"must not hold the {what}, {source}")


def _resolved(location: Location) -> str:
    if location.scheme == "s3":
        return location.key
    path = os.path.realpath("/" + location.key)
    return path.rstrip("/") + "/" if location.is_folder else path
