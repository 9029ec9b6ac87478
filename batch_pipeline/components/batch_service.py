"""The component of a declared service: YAML in, the definitions of the one factory out."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Annotated, Any, Optional

import dagster as dg
from dagster._utils.warnings import suppress_dagster_warnings
from dagster.components.resolved.base import derive_model_type
from pydantic import BaseModel, ConfigDict, Field, create_model

from batch_pipeline.components.places import placed
from batch_pipeline.components.rendering import rendered
from batch_pipeline.components.scaffolding import BatchServiceScaffolder
from batch_pipeline.components.template_schema import ServiceTemplateModel
from batch_pipeline.components.trigger_schema import TriggerModel, to_triggers
from batch_pipeline.errors import InvalidParameters, Problem
from batch_pipeline.node_specs import load_node_specs
from batch_pipeline.orchestration.declaration import GROUP, Declaration
from batch_pipeline.orchestration.declaration_check import check_declaration
from batch_pipeline.orchestration.executor import local_executor
from batch_pipeline.orchestration.factory import declare
from batch_pipeline.orchestration.names import RESERVED, RESERVED_PREFIXES
from batch_pipeline.orchestration.resources import resources_of
from batch_pipeline.settings import Settings
from batch_pipeline.triggers.settings import Trigger

_Template = Annotated[str, Field(pattern=r"^\s*\{\{[\s\S]*\}\}\s*$")]
_NARROWED: dict[str, Any] = {
    "service": ServiceTemplateModel,
    "triggers": list[TriggerModel],
    "deps": list[str],
    "freshness_policy": _Template,
    "automation_condition": _Template,
    "executor": _Template,
}


def _made_by_template(context: dg.ResolutionContext, value: Any, *, kind: type, example: str) -> Any:
    made = context.resolve_value(value)
    if made is None or isinstance(made, kind):
        return made
    raise ValueError(f"is {made!r}; an object of {kind.__name__} is expected, as {example} makes one")


def _object(kind: type, description: str, example: str) -> dg.Resolver:
    """An object of Dagster's, which YAML can only name by a template."""
    return dg.Resolver(
        partial(_made_by_template, kind=kind, example=example),
        model_field_type=Optional[str],  # type: ignore[arg-type]  # noqa: UP045  as Dagster's own models have it
        inject_before_resolve=False,
        description=description,
        examples=[example],
    )


def _texts(context: dg.ResolutionContext, values: Any) -> dict[str, str]:
    return {key: str(value) for key, value in rendered(context, dict(values)).items()}


@dg.scaffold_with(BatchServiceScaffolder)
class BatchService(dg.Component, dg.Model, dg.Resolvable):
    """A declared batch service: a template of its parameters, what makes services of it, and how its assets stand in
    the catalog. Each service is a partition of the assets input_manifest, inference_results and output_manifest.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    name: Annotated[
        str | None,
        dg.Resolver.default(
            description="The name of the declaration: letters, digits and _, at most 40, a letter first. "
            "By default that of the component's folder.",
            examples=["reviews"],
        ),
    ] = None
    service: Annotated[
        dict[str, Any],
        dg.Resolver(
            rendered,
            model_field_type=ServiceTemplateModel,
            description="The parameters of each service. Texts may hold {name}, {stem}, {time} and {etag8}.",
        ),
    ]
    triggers: Annotated[
        Sequence[Trigger],
        dg.Resolver(
            to_triggers,
            model_field_type=list[TriggerModel],
            description="What makes services: a list of objects, each with one key, its kind.",
            examples=[[{"manifests": {"path": "s3://bucket/incoming/"}}, {"schedule": {"cron": "0 6 * * *"}}]],
        ),
    ] = ()
    description: Annotated[str, dg.Resolver.default(description="What the services are for.")] = ""
    deps: Annotated[
        Sequence[dg.ResolvedAssetKey],
        dg.Resolver.default(
            description="The keys of the assets that the services read. They take the place of `input_data`.",
            examples=[["shop/reviews"]],
        ),
    ] = ()
    key_prefix: Annotated[
        str | Sequence[str],
        dg.Resolver.default(description="What the keys of its assets begin with, before the name.", examples=["shop"]),
    ] = ()
    group_name: Annotated[str, dg.Resolver.default(description="The group of its assets.")] = GROUP
    owners: Annotated[
        Sequence[str],
        dg.Resolver.default(description="E-mail addresses, or teams as team:NAME.", examples=[["team:shop"]]),
    ] = ()
    tags: Annotated[
        Mapping[str, str],
        dg.Resolver(
            _texts,
            model_field_type=Mapping[str, str | int | float | bool],
            description="Tags of its assets.",
            examples=[{"domain": "shop"}],
        ),
    ] = {}
    kinds: Annotated[
        Sequence[str], dg.Resolver.default(description="Kinds of its assets, shown as icons.", examples=[["onnx"]])
    ] = ("onnx",)
    freshness_policy: Annotated[
        dg.FreshnessPolicy | None,
        _object(
            dg.FreshnessPolicy,
            "How old its assets may grow.",
            "{{ dg.FreshnessPolicy.time_window(fail_window=datetime.timedelta(hours=24)) }}",
        ),
    ] = None
    automation_condition: Annotated[
        dg.AutomationCondition[Any] | None,
        _object(
            dg.AutomationCondition,
            "When Dagster materializes its assets by itself.",
            "{{ dg.AutomationCondition.eager() }}",
        ),
    ] = None
    executor: Annotated[
        dg.ExecutorDefinition | None,
        _object(
            dg.ExecutorDefinition,
            "What runs the steps of its job; by default processes of one machine.",
            "{{ my_k8s_executor }}",
        ),
    ] = None

    @classmethod
    def model(cls) -> type[BaseModel]:
        """The schema of its YAML. Dagster would also take a text for the whole template, and then name no bad key."""
        return _schema()

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """What the list of components says of it."""
        return dg.ComponentTypeSpec(
            description="A batch inference service: an ONNX model over a folder or manifest of a bucket, on N nodes.",
            tags=["batch inference", "onnx", "s3"],
            produces=["asset", "asset_check", "job", "schedule", "sensor", "resource"],
        )

    @suppress_dagster_warnings  # of what we use that is in beta: no matter of the project's
    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Its assets, job, sensors and schedule. No network. Raises `InvalidParameters` that names file and line."""
        settings = Settings.from_environment()
        with placed(context):
            declaration = self.declaration(context)
            check_declaration(declaration, settings)
            declared = declare(
                declaration, load_node_specs(settings.node_specs), os.environ, self.executor or local_executor
            )
        return dg.Definitions.merge(declared, dg.Definitions(resources=resources_of(settings.step_outputs)))

    def declaration(self, context: dg.ComponentLoadContext) -> Declaration:
        """The same as plain data. Raises `InvalidParameters` where neither it nor its folder has a fitting name."""
        return Declaration(
            name=_name(self.name, context),
            template=self.service,
            triggers=tuple(self.triggers),
            description=self.description,
            deps=tuple(self.deps),
            key_prefix=_prefix(self.key_prefix),
            group=self.group_name,
            owners=tuple(self.owners),
            tags=dict(self.tags),
            kinds=tuple(self.kinds),
            freshness_policy=self.freshness_policy,
            automation_condition=self.automation_condition,
        )


@cache
def _schema() -> type[BaseModel]:
    derived = derive_model_type(BatchService)
    narrowed = {name: (kind, derived.model_fields[name]) for name, kind in _NARROWED.items()}
    return create_model("BatchServiceModel", __base__=derived, **narrowed)  # type: ignore[call-overload,no-any-return]


def _prefix(given: str | Sequence[str]) -> tuple[str, ...]:
    """The parts of the prefix. Raises `InvalidParameters` for one that is empty: its asset could not be named."""
    parts = tuple(given.split("/") if isinstance(given, str) else given) if given else ()
    if all(part and "/" not in part for part in parts):
        return parts
    raise InvalidParameters(
        (Problem("key_prefix", f"is {given!r}, which has a part that is empty or no single one; shop/data is right"),)
    )


def _name(given: str | None, context: dg.ComponentLoadContext) -> str:
    """The name that was given, or else the folder's. Raises `InvalidParameters`."""
    name = given or re.sub(r"[^A-Za-z0-9_]", "_", context.component_path.file_path.name)
    if name in RESERVED or name.startswith(RESERVED_PREFIXES):
        what = f"is {name}, which something else is called, or may be; another is expected"
    elif not re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,39}", name):
        what = f"is {name!r}; a letter is expected, and up to 39 letters, digits and _ after it"
    else:
        return name
    raise InvalidParameters((Problem("name", what if given else f"is missing, and that of the folder {what}"),))
