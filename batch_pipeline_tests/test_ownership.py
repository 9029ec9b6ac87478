"""Two at one output folder: one gets it, one that is silent loses it, and what comes back too late changes nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from batch_pipeline import service
from batch_pipeline.deployment import Deployment
from batch_pipeline.errors import BatchPipelineError, OutputRefused, OwnershipLost, ServiceLocked, StorageFailed
from batch_pipeline.layout import OutputLayout
from batch_pipeline.locations import Location
from batch_pipeline.node import run
from batch_pipeline.ownership import Heartbeat, Owner, ProcessIdentity, check_free, claim, release
from batch_pipeline.parameters import parse_parameters
from batch_pipeline.settings import Settings
from batch_pipeline.shard import Shard
from batch_pipeline.storage import Storage
from batch_pipeline_tests.conftest import make_bucket, use_server
from batch_pipeline_tests.faults import outputs
from batch_pipeline_tests.faults.mortal import MortalStorage
from batch_pipeline_tests.places import Place, run_service

SECONDS = 1.0
"""After which a lock of these tests is a silent holder's."""
SERVICE = "flowers"
INPUTS = 30


@pytest.fixture(params=["disk", pytest.param("bucket", marks=pytest.mark.server)])
def output(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    """An output folder on the local disk, and in the real S3 server."""
    if request.param == "disk":
        return Location("", f"{tmp_path}/out/"[1:], "file")
    use_server(request.getfixturevalue("rgw_server"), monkeypatch)
    return Location(make_bucket(), "out/")


@pytest.fixture
def layout(output: Location) -> OutputLayout:
    return OutputLayout(output)


def elsewhere(run_id: str, name: str = SERVICE) -> Owner:
    """A run of another machine: nobody here can say whether it lives."""
    return Owner(run_id, name, ProcessIdentity("elsewhere", "boot", 1, "1"))


def claimed(storage: Storage, layout: OutputLayout, owner: Owner) -> Exception | None:
    try:
        claim(storage, layout, owner, lock_seconds=SECONDS)
    except BatchPipelineError as refused:
        return refused
    return None


# --- who gets it -----------------------------------------------------------------------------------------------


def test_of_many_at_once_one_gets_the_folder_and_the_others_are_told_who(storage, layout):
    us = ProcessIdentity.current()
    owners = [Owner(f"run-{number}", SERVICE if number % 2 else "trees", us) for number in range(8)]
    with ThreadPoolExecutor(len(owners)) as pool:
        found = list(pool.map(lambda owner: claimed(storage, layout, owner), owners))
    (winner,) = [owner for owner, refused in zip(owners, found, strict=True) if refused is None]
    for owner, refused in zip(owners, found, strict=True):
        if owner.service != winner.service:
            assert isinstance(refused, OutputRefused)
            assert f"in use by the service {winner.service}" in refused.message
        elif owner != winner:
            assert isinstance(refused, ServiceLocked)
            assert f"run {winner.run_id} of the service {winner.service}" in refused.message


def test_a_lock_lasts_as_long_as_it_is_renewed_and_no_longer(storage, layout):
    holder, second = elsewhere("first"), elsewhere("second")
    claim(storage, layout, holder, lock_seconds=SECONDS)
    with Heartbeat(storage, layout, holder, lock_seconds=SECONDS).running() as heartbeat:
        for _ in range(2):
            with pytest.raises(ServiceLocked, match="run first of the service flowers is at work"):
                claim(storage, layout, second, lock_seconds=SECONDS)
    heartbeat.check()
    claim(storage, layout, second, lock_seconds=SECONDS)
    assert claimed(storage, layout, holder) is None, "the second does not renew its own"


def test_a_run_that_has_ended_keeps_the_folder_while_a_process_of_it_is_at_work(storage, layout):
    """As one that was called off by force, or whose node its orchestrator has lost sight of."""
    first, second = elsewhere("first"), elsewhere("second")
    claim(storage, layout, first, lock_seconds=SECONDS)
    with Heartbeat(storage, layout, first, lock_seconds=SECONDS).running() as heartbeat:
        with pytest.raises(ServiceLocked, match="run first of the service flowers has ended, but a process of it"):
            claim(storage, layout, second, lock_seconds=SECONDS, is_gone=lambda _: True)
        heartbeat.check()
    claim(storage, layout, second, lock_seconds=SECONDS, is_gone=lambda _: True)


def test_another_services_lock_is_taken_over_once_it_has_been_silent_for_long(storage, layout):
    """As of a machine that went down in the midst of a service that was deleted since: nobody else removes it."""
    claim(storage, layout, elsewhere("first"), lock_seconds=SECONDS)
    with pytest.raises(OutputRefused, match="in use by the service flowers"):
        claim(storage, layout, elsewhere("second", "trees"), lock_seconds=SECONDS)
    with pytest.raises(OutputRefused, match="in use by the service flowers"):
        check_free(storage, layout, "trees", lock_seconds=SECONDS)
    time.sleep(SECONDS)
    check_free(storage, layout, "trees", lock_seconds=SECONDS)
    claim(storage, layout, elsewhere("second", "trees"), lock_seconds=SECONDS)
    with pytest.raises(OutputRefused, match="in use by the service trees"):
        check_free(storage, layout, SERVICE, lock_seconds=SECONDS)


def test_another_services_lock_that_only_looks_old_is_left_to_it(storage, layout):
    """By the clock of this machine, that is."""
    holder = elsewhere("first")
    claim(storage, layout, holder, lock_seconds=SECONDS)
    time.sleep(SECONDS)
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(claimed, storage, layout, elsewhere("second", "trees"))
        time.sleep(SECONDS / 2)
        heartbeat = Heartbeat(storage, layout, holder, lock_seconds=SECONDS)
        heartbeat.beat()
        error = refused.result()
    assert isinstance(error, OutputRefused)
    assert "in use by the service flowers, which is at work there; choose another folder" in error.message
    heartbeat.check()


def test_another_services_lock_is_left_to_it_where_its_process_lives(storage, layout):
    claim(storage, layout, Owner("first", SERVICE, ProcessIdentity.current()), lock_seconds=SECONDS)
    time.sleep(SECONDS)
    for _ in range(2):
        with pytest.raises(OutputRefused, match="in use by the service flowers"):
            claim(storage, layout, elsewhere("second", "trees"), lock_seconds=SECONDS)
        with pytest.raises(OutputRefused, match="in use by the service flowers"):
            check_free(storage, layout, "trees", lock_seconds=SECONDS)


# --- who comes back too late -------------------------------------------------------------------------------------


def test_a_holder_that_was_silent_asks_before_it_goes_on(storage, layout):
    holder = elsewhere("first")
    claim(storage, layout, holder, lock_seconds=SECONDS)
    heartbeat = Heartbeat(storage, layout, holder, lock_seconds=SECONDS)
    time.sleep(SECONDS / 2)
    heartbeat.check()  # nobody wanted it meanwhile
    claim(storage, layout, elsewhere("second"), lock_seconds=SECONDS)
    release(storage, layout, "first")
    with pytest.raises(OwnershipLost, match="run first was not heard of"):
        heartbeat.check()
    second = claimed(storage, layout, Owner("third", "trees", ProcessIdentity.current()))
    assert isinstance(second, OutputRefused), "the first gave back what was the second's"


def test_who_was_stopped_while_it_gave_the_folder_back_leaves_it_to_its_successor(storage, layout):
    class Stopped(Storage):
        """Which learns whose the lock is, and comes back when it is another's."""

        def open(self, *args: Any, **options: Any) -> Any:
            found = super().open(*args, **options)
            if not successors:
                successors.append(elsewhere("second"))
                claim(storage, layout, successors[0], lock_seconds=SECONDS)
            return found

    successors: list[Owner] = []
    claim(storage, layout, elsewhere("first"), lock_seconds=SECONDS)
    release(Stopped(allow_local=True), layout, "first", lock_seconds=SECONDS)
    with pytest.raises(OutputRefused, match="in use by the service flowers"):
        check_free(storage, layout, "trees", lock_seconds=SECONDS)
    release(storage, layout, "second", lock_seconds=SECONDS)
    check_free(storage, layout, "trees", lock_seconds=SECONDS)


def test_a_holder_that_was_silent_does_not_go_on_where_nobody_can_say_whose_the_folder_is(storage, layout):
    class Unreachable(Storage):
        def open(self, *_: object, **__: object) -> Any:
            raise StorageFailed("no answer")

    holder = elsewhere("first")
    claim(storage, layout, holder, lock_seconds=SECONDS)
    heartbeat = Heartbeat(Unreachable(allow_local=True), layout, holder, lock_seconds=SECONDS)
    heartbeat.beat()
    heartbeat.check()
    time.sleep(SECONDS / 2)
    with pytest.raises(StorageFailed, match="no answer"):
        heartbeat.check()


def _work(body: dict[str, Any], env: dict[str, str], told: Connection) -> None:
    """A run that is stopped, all threads of it, in the middle of its work, as when its machine sleeps.

    It does one unit at a time, so that no write is on its way just then: one that is nobody can call back.
    """
    run.AT_ONCE = run.TOGETHER = 1
    deployment = Deployment(Settings.from_environment(env))
    parameters, owner = parse_parameters(body, settings=deployment.settings), elsewhere("older")
    service.ingest(parameters, deployment, owner)
    (shard,) = service.plan(parameters, deployment, owner)
    changes = 0

    def stop() -> None:
        nonlocal changes
        changes += 1
        if changes == 3 * (INPUTS // 2):  # a result is opened, written and completed
            os.kill(os.getpid(), signal.SIGSTOP)

    deployment.storage = MortalStorage(parameters.output.child("infer-result/"), (), stop, allow_local=True)
    _infer_and_tell(shard, deployment, owner, told)


def _infer_and_tell(shard: Shard, deployment: Deployment, owner: Owner, told: Connection) -> None:
    try:
        service.infer(shard, deployment, owner)
    except BatchPipelineError as error:
        told.send((type(error).__name__, error.message))
    else:
        told.send(("finished", ""))


def test_a_run_that_was_stopped_and_comes_back_changes_nothing_of_the_run_that_took_over(tmp_path, output):
    env = {"BATCH_PIPELINE_LOCK_SECONDS": str(SECONDS)}
    place = Place.at(tmp_path, **env)
    for number in range(INPUTS):
        place.put(f"{number:03}.csv")
    where = f"file:///{output.key}" if output.scheme == "file" else f"s3://{output.bucket}/{output.key}"
    changes = {"output_path": where, "if_changed": "overwrite"}
    older = place.parameters(**changes).to_config()
    settings = {
        **env,
        "BATCH_PIPELINE_ALLOW_LOCAL_FILES": "true",
        "BATCH_PIPELINE_MODELS": f"file://{tmp_path}/models/",
        "BATCH_PIPELINE_CACHE": str(tmp_path / "cache"),
    }
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe()
    process = processes.Process(target=_work, args=(older, settings, theirs))
    process.start()
    try:
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert process.is_alive()
            time.sleep(0.05)
        # Made over with something else: what the older one still writes would be wrong, and look right.
        newer = place.parameters(**changes, join_input=True)
        owner = elsewhere("newer")
        report = service.ingest(newer, place.deployment, owner)
        with service.owned(newer.output, place.deployment, owner):
            newer = newer.of(report.made_from)
            (shard,) = service.plan(newer, place.deployment, owner)
            service.infer(shard, place.deployment, owner)
            before = _everything(place.deployment.storage, output)
            os.kill(process.pid, signal.SIGCONT)
            name, message = ours.recv()
            process.join()
            assert (name, "run older was not heard of" in message) == ("OwnershipLost", True), message
            assert _everything(place.deployment.storage, output) == before
            assert service.publish(newer, place.deployment, owner).state == "finished"
    finally:
        process.kill()
        process.join()
    alone = place.parameters(output_path=f"file://{tmp_path}/alone/", join_input=True)
    run_service(alone, place.deployment)
    storage = place.deployment.storage
    results = {name: data for name, data in outputs.published(storage, output).items() if "manifest" not in name}
    undisturbed = outputs.published(storage, alone.output)
    assert results == {name: data for name, data in undisturbed.items() if "manifest" not in name}


def _work_apart(body: dict[str, Any], env: dict[str, str], told: Connection) -> None:
    """A run whose node works in a process of its own, as an earlier one died."""
    deployment = Deployment(Settings.from_environment(env))
    parameters, owner = parse_parameters(body, settings=deployment.settings), elsewhere("older")
    service.ingest(parameters, deployment, owner)
    (shard,) = service.plan(parameters, deployment, owner)
    deployment.storage.write(OutputLayout(parameters.output).at_work(0), b"")
    _infer_and_tell(shard, deployment, owner, told)


def test_a_watched_process_that_comes_back_before_the_one_that_watches_changes_nothing(tmp_path):
    env = {"BATCH_PIPELINE_LOCK_SECONDS": str(SECONDS)}
    place = Place.at(tmp_path, **env)
    for number in range(1000):
        place.put(f"{number:03}.csv")
    changes = {"if_changed": "overwrite"}
    settings = {
        **env,
        "BATCH_PIPELINE_ALLOW_LOCAL_FILES": "true",
        "BATCH_PIPELINE_MODELS": f"file://{tmp_path}/models/",
        "BATCH_PIPELINE_CACHE": str(tmp_path / "cache"),
    }
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_work_apart, args=(place.parameters(**changes).to_config(), settings, theirs)
    )
    process.start()
    children: list[int] = []
    try:
        while len(list(place.output.glob("infer-result/[!.]*"))) < 5:
            assert process.is_alive()
            time.sleep(0.001)
        children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        for pid in (process.pid or 0, *children):
            os.kill(pid, signal.SIGSTOP)
        newer, owner = place.parameters(**changes, join_input=True), elsewhere("newer")
        report = service.ingest(newer, place.deployment, owner)
        with service.owned(newer.output, place.deployment, owner):
            service.plan(newer.of(report.made_from), place.deployment, owner)
            before = _everything(place.deployment.storage, newer.output)
            for pid in children:
                os.kill(pid, signal.SIGCONT)
            time.sleep(2 * SECONDS)
            assert _everything(place.deployment.storage, newer.output) == before
            os.kill(process.pid or 0, signal.SIGCONT)
            name, message = ours.recv()
            assert (name, "run older was not heard of" in message) == ("OwnershipLost", True), message
    finally:
        for pid in (process.pid or 0, *children):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.join()


def _everything(storage: Storage, output: Location) -> dict[str, str]:
    """Every object, and its ETag, but the lock, which is renewed."""
    return {
        info.location.key: info.etag for info in storage.list(output) if not info.location.key.endswith("lock.json")
    }
