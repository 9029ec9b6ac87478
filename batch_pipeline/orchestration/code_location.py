"""The code location of workspace.yaml, as a run must name it for the UI to show it and the daemon to start it."""

from __future__ import annotations

import sys

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.utils import make_new_run_id

from batch_pipeline.orchestration.config import to_run_config
from batch_pipeline.orchestration.holders import holder_tag
from batch_pipeline.orchestration.names import DEFINITIONS_ATTRIBUTE, DEFINITIONS_MODULE, JOB, LOCATION, PARTITION
from batch_pipeline.orchestration.tags import service_tags
from batch_pipeline.ownership import ProcessIdentity
from batch_pipeline.parameters import ServiceParameters


def reconstructable_job() -> ReconstructableJob:
    """The job of our own definitions, as another process can load it too."""
    repository = ReconstructableRepository.for_module(DEFINITIONS_MODULE, DEFINITIONS_ATTRIBUTE)
    return repository.get_reconstructable_job(JOB)


def create_run(
    instance: dg.DagsterInstance, parameters: ServiceParameters, holder: ProcessIdentity | None = None
) -> DagsterRun:
    """A new run of the service named in the parameters, not started. `holder` is the process that will execute it."""
    job, run_id = reconstructable_job(), make_new_run_id()
    held = holder_tag(holder, run_id) if holder is not None else {}
    return instance.create_run_for_job(
        job.get_definition(),
        run_id=run_id,
        run_config=to_run_config(parameters),
        tags={PARTITION: parameters.name or "", **service_tags(parameters), **held},
        remote_job_origin=_remote_origin(),
        job_code_origin=job.get_python_origin(),
    )


def _remote_origin() -> RemoteJobOrigin:
    target = LoadableTargetOrigin(
        executable_path=sys.executable, module_name=DEFINITIONS_MODULE, attribute=DEFINITIONS_ATTRIBUTE
    )
    location = ManagedGrpcPythonEnvCodeLocationOrigin(loadable_target_origin=target, location_name=LOCATION)
    return RemoteRepositoryOrigin(location, SINGLETON_REPOSITORY_NAME).get_job_origin(JOB)
