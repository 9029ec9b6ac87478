"""The code location of workspace.yaml, as a run must name it for the UI to show it and the daemon to start it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
from dagster._utils.hosted_user_process import recon_repository_from_origin

from batch_pipeline.errors import InvalidSettings, Refused
from batch_pipeline.orchestration.config import to_run_config
from batch_pipeline.orchestration.holders import holder_tag
from batch_pipeline.orchestration.names import (
    DEFINITIONS_ATTRIBUTE,
    DEFINITIONS_MODULE,
    JOB,
    LOCATION,
    MAX_RETRIES,
    PARTITION,
    SERVICE,
    TAG_DECLARATION,
    job_name,
)
from batch_pipeline.orchestration.tags import service_tags
from batch_pipeline.ownership import ProcessIdentity
from batch_pipeline.parameters import ServiceParameters
from batch_pipeline.settings import Settings


def declared_here() -> list[str]:
    """The declarations of our own code location. One that can't be loaded stops nobody: that is for the UI to say."""
    try:
        if Settings.from_environment().services is None:
            return []
        from batch_pipeline.definitions import defs
    except InvalidSettings as error:
        logging.getLogger(__name__).warning("the declared services are not known: %s", error.message)
        return []
    tagged = [job.tags[TAG_DECLARATION] for job in defs.jobs or () if job.tags and TAG_DECLARATION in job.tags]
    return [name for name in tagged if name != SERVICE]


@dataclass(frozen=True)
class JobOrigin:
    """Where a job is defined: for a process that loads it, and for the UI and the daemon."""

    job: ReconstructableJob
    remote: RemoteJobOrigin | None

    @classmethod
    def own(cls) -> JobOrigin:
        """The job of our own definitions."""
        repository = ReconstructableRepository.for_module(DEFINITIONS_MODULE, DEFINITIONS_ATTRIBUTE)
        return cls(repository.get_reconstructable_job(JOB), _remote_repository().get_job_origin(JOB))

    @classmethod
    def of(cls, run: DagsterRun, declaration: str) -> JobOrigin:
        """The declaration's job, where the run says that it is defined. Raises `Refused` where it does not."""
        if run.job_code_origin is None:
            raise Refused(f"run {run.run_id} does not say where its job is defined: run the service from the UI")
        name, remote = job_name(declaration), run.remote_job_origin
        try:
            job = recon_repository_from_origin(run.job_code_origin.repository_origin).get_reconstructable_job(name)
            job.get_definition()
        except Exception as error:  # somebody else's code, which may raise anything
            raise Refused(
                f"the code location that declares {declaration} can't be loaded here: {' '.join(str(error).split())}; "
                "use the environment of its project, or run the service from the UI"
            ) from error
        return cls(job, remote.repository_origin.get_job_origin(name) if remote is not None else None)


def create_run(
    instance: dg.DagsterInstance,
    parameters: ServiceParameters,
    holder: ProcessIdentity | None = None,
    *,
    declaration: str = SERVICE,
    origin: JobOrigin | None = None,
    run_config: Mapping[str, Any] | None = None,
) -> DagsterRun:
    """A new run of the service named in the parameters, not started. `holder` is the process that will execute it.

    `origin` is that of the declaration's job, by default our own; `run_config` gives the parameters, by default all.
    """
    origin = origin or JobOrigin.own()
    run_config = to_run_config(parameters.to_config(), declaration) if run_config is None else run_config
    run_id = make_new_run_id()
    # Whoever waits for a run sees it end: no daemon is to take it up where that process was killed.
    held = {**holder_tag(holder, run_id), MAX_RETRIES: "0"} if holder is not None else {}
    return instance.create_run_for_job(
        origin.job.get_definition(),
        run_id=run_id,
        run_config=run_config,
        tags={PARTITION: parameters.name or "", **service_tags(parameters, declaration), **held},
        remote_job_origin=origin.remote,
        job_code_origin=origin.job.get_python_origin(),
    )


def _remote_repository() -> RemoteRepositoryOrigin:
    target = LoadableTargetOrigin(
        executable_path=sys.executable, module_name=DEFINITIONS_MODULE, attribute=DEFINITIONS_ATTRIBUTE
    )
    location = ManagedGrpcPythonEnvCodeLocationOrigin(loadable_target_origin=target, location_name=LOCATION)
    return RemoteRepositoryOrigin(location, SINGLETON_REPOSITORY_NAME)
