"""Both triggers on the local disk while files come and go, looks are killed, ticks and cursors lost, runs not made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage
from batch_pipeline.triggers.manifests import ManifestWatch
from batch_pipeline.triggers.new_files import NewFilesWatch
from batch_pipeline_tests.triggers.ticking import Daemon, DyingStorage, Killed, listed

NAMES = st.sampled_from(["a", "b", "m", "z", "A/1", "B/2", "~", "0"])
SIZES = st.integers(0, 5)


class Anything(RuleBasedStateMachine):
    """What may happen to any trigger on files; `end` says what must be true whatever did."""

    suffix = ""

    def __init__(self) -> None:
        super().__init__()
        self.root = TemporaryDirectory()
        self.storage = Storage(allow_local=True)
        self.folder = Location("", f"{self.root.name}/"[1:], "file")
        self.drop = self.folder.child("drop/")
        self.daemon = Daemon(self.watch())

    def watch(self) -> Any:
        raise NotImplementedError

    @rule(name=NAMES, size=SIZES)
    def write(self, name: str, size: int) -> None:
        self.storage.write(self.drop.child(f"{name}{self.suffix}"), b"x" * size)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        self.storage.delete([self.drop.child(f"{name}{self.suffix}")])

    @rule(launch=st.none() | st.integers(0, 2), keep=st.booleans())
    def tick(self, launch: int | None, keep: bool) -> None:
        self.daemon.tick(launch=launch, keep=keep)

    @rule(requests=st.integers(0, 10), done=st.booleans())
    def killed(self, requests: int, done: bool) -> None:
        dying = replace(self.daemon.watch, storage=DyingStorage(self.storage, requests, done=done))
        try:
            self.daemon.tick(using=dying)
        except Killed:
            return

    @rule(cursor=st.none() | st.just("garbage"))
    def lose_the_cursor(self, cursor: str | None) -> None:
        self.daemon.cursor = cursor

    @rule()
    def lose_the_state(self) -> None:
        self.storage.delete(info.location for info in self.storage.list(self.folder.child("state/")))

    @invariant()
    def few_states(self) -> None:
        assert len(list(self.storage.list(self.folder.child("state/")))) < 30

    def teardown(self) -> None:
        try:
            self.daemon.settle()
            self.end({(info.location.uri, info.etag) for info in self.storage.list(self.drop)})
        finally:
            self.root.cleanup()

    def end(self, there: set[tuple[str, str]]) -> None:
        raise NotImplementedError


class Manifests(Anything):
    suffix = ".manifest"

    def watch(self) -> ManifestWatch:
        return ManifestWatch(self.storage, self.drop, self.folder.child("state/"), most=2)

    def end(self, there: set[tuple[str, str]]) -> None:
        assert there <= {(one.location.uri, one.etag) for one in self.daemon.runs.values()}


class NewFiles(Anything):
    """Each version of a local file has an ETag of its own, so that none at all may be taken twice."""

    def watch(self) -> NewFilesWatch:
        manifests = self.folder.child("gathered/")
        return NewFilesWatch(self.storage, self.drop, self.folder.child("state/"), manifests, "new", 0, 2, 8, most=2)

    @rule(max_files=st.integers(1, 3), quiet=st.booleans())
    def configure(self, max_files: int, quiet: bool) -> None:
        self.daemon.tick(using=replace(self.daemon.watch, max_files=max_files, settle_seconds=0 if quiet else 1000))

    def end(self, there: set[tuple[str, str]]) -> None:
        taken = listed(self.storage, list(self.daemon.runs.values()))
        assert len(taken) == len(set(taken)), "taken twice"
        assert there <= set(taken), "missed"
        made = {info.location for info in self.storage.list(self.folder.child("gathered/"))}
        assert made == {one.location for one in self.daemon.runs.values()}


SETTINGS = settings(max_examples=25, stateful_step_count=25, deadline=None)


def test_each_manifest_makes_one_service() -> None:
    run_state_machine_as_test(Manifests, settings=SETTINGS)


def test_each_file_is_in_one_manifest() -> None:
    run_state_machine_as_test(NewFiles, settings=SETTINGS)


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """Of many looks' states one or two remain."""
    storage, root = Storage(allow_local=True), Location("", f"{tmp_path}/"[1:], "file")
    daemon = Daemon(ManifestWatch(storage, root.child("drop/"), root.child("state/")))
    for number in range(50):
        storage.write(root.child(f"drop/{number}.manifest"), b"")
        daemon.tick(keep=bool(number % 3))
    daemon.settle()
    assert len(list(storage.list(root.child("state/")))) <= 2
