"""What is declared of a set of services: a template of their parameters, and how their assets stand in the catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import dagster as dg

from batch_pipeline.orchestration.names import SERVICE, job_name
from batch_pipeline.triggers.settings import Trigger

GROUP = "batch_service"


@dataclass(frozen=True)
class Declaration:
    """One set of services: each is a partition of the same assets.

    The default is the set that the Launchpad and the command line deploy to, which has no template.
    """

    name: str = SERVICE
    template: Mapping[str, Any] | None = None
    """Parameters of a service, whose texts may hold `{name}`, `{stem}`, `{time}` and `{etag8}`."""
    triggers: Sequence[Trigger] = ()
    description: str = ""
    deps: Sequence[dg.AssetKey] = ()
    """Assets that others make and that the services read."""
    key_prefix: Sequence[str] = ()
    group: str = GROUP
    owners: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    kinds: Sequence[str] = ("onnx",)
    freshness_policy: dg.FreshnessPolicy | None = None
    automation_condition: dg.AutomationCondition[Any] | None = None

    @property
    def is_ad_hoc(self) -> bool:
        return self.name == SERVICE

    @property
    def job(self) -> str:
        return job_name(self.name)

    @cached_property
    def is_fixed(self) -> bool:
        """Whether it is one service, named as the declaration: nothing in its template tells two of them apart."""
        if self.template is None or any(trigger.brings_input for trigger in self.triggers):
            return False
        from batch_pipeline.triggers.template import ServiceTemplate

        return not ServiceTemplate(self.template).placeholders

    @cached_property
    def partitions(self) -> dg.PartitionsDefinition[str]:
        """The names of its services."""
        if self.is_fixed:
            return dg.StaticPartitionsDefinition([self.name])
        return dg.DynamicPartitionsDefinition(name=self.name)

    def key(self, asset: str) -> dg.AssetKey:
        """The key of one of its assets."""
        return dg.AssetKey([asset] if self.is_ad_hoc else [*self.key_prefix, self.name, asset])


AD_HOC = Declaration()
