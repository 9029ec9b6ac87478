"""The schema of a declaration's template: the parameters of a service, as its YAML may have them."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from batch_pipeline.parameters import ServiceParameters

_DESCRIPTIONS = {
    "input_path": "A folder (s3://bucket/prefix/) or one file ending .manifest; left out where a trigger brings it.",
    "output_path": "Where the results go. Each service has its own folder: s3://bucket/results/{name}/",
}


def _schema() -> type[BaseModel]:
    fields: dict[str, Any] = {
        name: _field(name, field) for name, field in ServiceParameters.model_fields.items() if name != "name"
    }
    return create_model(
        "ServiceTemplateModel",
        __config__=ConfigDict(extra="forbid", strict=True, title="Service template"),
        __doc__="The parameters of each service; its name is that of its partition.",
        **fields,
    )


def _field(name: str, field: FieldInfo) -> tuple[Any, Any]:
    description = _DESCRIPTIONS.get(name, field.description)
    if name == "input_path":
        return str, Field(default="", description=description)
    return _kind(field), Field(default=... if field.is_required() else field.default, description=description)


def _kind(field: FieldInfo) -> Any:
    """The parameter's own type. A number may also be a text, a template of Dagster's.

    Nothing else is a union: of those Dagster can only say that nothing fits, not what is wrong with which key.
    """
    kind: Any = field.annotation
    if type(None) in get_args(kind):
        (kind,) = [each for each in get_args(kind) if each is not type(None)]
    if field.metadata:
        kind = Annotated[(kind, *field.metadata)]
    return kind | str if field.annotation in {int, float, bool} else kind


ServiceTemplateModel = _schema()
"""Every parameter but the name. A value is judged where the template is, with placeholders filled in."""
