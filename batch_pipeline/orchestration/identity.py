"""Which service a name means: one that was deployed, or `declaration/partition` of a declared one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import starmap

import dagster as dg

from batch_pipeline.errors import ServiceNotFound
from batch_pipeline.orchestration.names import SERVICE, full_name
from batch_pipeline.orchestration.runs import declarations, latest_run, unfinished_runs


@dataclass(frozen=True)
class ServiceId:
    """One partition of one declaration."""

    declaration: str
    partition: str

    @property
    def name(self) -> str:
        """As it stands in the list of services."""
        return full_name(self.declaration, self.partition)


def all_services(instance: dg.DagsterInstance) -> list[ServiceId]:
    """Every service that the instance has a record of, whatever code location declares it."""
    return [
        ServiceId(declaration, partition)
        for declaration in declarations(instance)
        for partition in _partitions(instance, declaration)
    ]


def listed_services(instance: dg.DagsterInstance) -> list[ServiceId]:
    """All of them, and those at work whose record was deleted meanwhile, which can be stopped all the same."""
    return list(dict.fromkeys((*all_services(instance), *starmap(ServiceId, unfinished_runs(instance)))))


def find_service(instance: dg.DagsterInstance, name: str) -> ServiceId:
    """The service of that name; `declaration/` may be left out where only one is meant. Raises `ServiceNotFound`."""
    services = listed_services(instance)
    exact = [service for service in services if service.name == name]
    found = exact or [service for service in services if service.partition == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ServiceNotFound(f"{name} may be {' or '.join(service.name for service in found)}: give it in full")
    raise ServiceNotFound(f"there is no service {name}; list them with: batch-pipeline services list")


def _partitions(instance: dg.DagsterInstance, declaration: str) -> list[str]:
    partitions = list(instance.get_dynamic_partitions(declaration))
    if declaration in {SERVICE, *partitions} or latest_run(instance, declaration, declaration) is None:
        return partitions
    # The one service of a fixed declaration, of which no partition is kept.
    return [*partitions, declaration]
