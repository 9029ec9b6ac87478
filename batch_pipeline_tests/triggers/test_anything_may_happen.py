"""Both triggers on the local disk while files come and go, looks are killed, ticks and cursors lost, runs not made."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage
from batch_pipeline.triggers.cursor import Cursor
from batch_pipeline.triggers.manifests import ManifestWatch
from batch_pipeline.triggers.new_files import NewFilesWatch
from batch_pipeline_tests.triggers.ticking import Daemon, DyingStorage, Killed, listed

NAMES = st.sampled_from(["a", "b", "m", "z", "A/1", "B/2", "~", "0"])
SIZES = st.integers(0, 5)
WHICH = st.integers(0, 1)


class Anything(RuleBasedStateMachine):
    """What may happen to two triggers of one kind on files; `end` says what must be true whatever did."""

    suffix = ""

    def __init__(self) -> None:
        super().__init__()
        self.root = TemporaryDirectory()
        self.storage = Storage(allow_local=True)
        self.folder = Location("", f"{self.root.name}/"[1:], "file")
        self.drops = [self.folder.child("drop/"), self.folder.child("drop-2/")]
        self.daemons = [Daemon(self.watch(which, 0)) for which in (0, 1)]

    def watch(self, which: int, place: int) -> Any:
        """The watch of a drop, whose own folders are in that place."""
        raise NotImplementedError

    def state(self, which: int, place: int) -> Location:
        return self.folder.child(f"place-{place}/state-{which}/")

    @rule(which=WHICH, name=NAMES, size=SIZES)
    def write(self, which: int, name: str, size: int) -> None:
        self.storage.write(self.drops[which].child(f"{name}{self.suffix}"), b"x" * size)

    @rule(which=WHICH, name=NAMES)
    def delete(self, which: int, name: str) -> None:
        self.storage.delete([self.drops[which].child(f"{name}{self.suffix}")])

    @rule(which=WHICH, launch=st.none() | st.integers(0, 2), keep=st.booleans())
    def tick(self, which: int, launch: int | None, keep: bool) -> None:
        self.daemons[which].tick(launch=launch, keep=keep)

    @rule(which=WHICH, requests=st.integers(0, 10), done=st.booleans())
    def killed(self, which: int, requests: int, done: bool) -> None:
        daemon = self.daemons[which]
        dying = replace(daemon.watch, storage=DyingStorage(self.storage, requests, done=done))
        try:
            daemon.tick(using=dying)
        except Killed:
            return

    @rule(which=WHICH, cursor=st.none() | st.just("garbage"))
    def lose_the_cursor(self, which: int, cursor: str | None) -> None:
        if self.arrived(which):
            self.daemons[which].cursor = cursor

    @rule(which=WHICH)
    def lose_the_state(self, which: int) -> None:
        """With nothing gathered by then, nobody could tell what was taken, and the trigger goes on no more."""
        state = self.daemons[which].watch.state  # type: ignore[attr-defined]
        if self.arrived(which) and self.daemons[which].runs:
            self.storage.delete(info.location for info in self.storage.list(state.child("index/")))

    @precondition(lambda self: all(self.knows(which) for which in (0, 1)))
    @rule(place=st.integers(0, 2), swapped=st.booleans())
    def declare_anew(self, place: int, swapped: bool) -> None:
        """The outputs are elsewhere, or the triggers in another order, or both."""
        one, other = self.daemons
        one.watch, other.watch = self.watch(0, place), self.watch(1, place)
        if swapped:
            one.cursor, other.cursor = other.cursor, one.cursor

    def arrived(self, which: int) -> bool:
        """Whether the trigger went on from its last state since it was moved: until then that is not to be lost."""
        found = Cursor.read(self.daemons[which].cursor or "")
        return found is None or found.folder == self.daemons[which].watch.state  # type: ignore[attr-defined]

    def knows(self, which: int) -> bool:
        """Whether the cursor names its state where it now is: it went on once since it was moved, or changed its place.

        A move that is taken back before that leaves behind what a look that was killed meanwhile has gathered.
        """
        found = Cursor.read(self.daemons[which].cursor or "")
        if found is None or found.folder != self.daemons[which].watch.state:  # type: ignore[attr-defined]
            return False
        return self.storage.exists(found.folder.child(f"index/{found.name}"))

    @invariant()
    def few_states(self) -> None:
        for which, place in product((0, 1), (0, 1, 2)):
            assert len(list(self.storage.list(self.state(which, place).child("index/")))) < 30

    def teardown(self) -> None:
        try:
            for daemon, drop in zip(self.daemons, self.drops, strict=True):
                daemon.settle()
                self.end(daemon, {(info.location.uri, info.etag) for info in self.storage.list(drop)})
        finally:
            self.root.cleanup()

    def end(self, daemon: Daemon, there: set[tuple[str, str]]) -> None:
        raise NotImplementedError


class Manifests(Anything):
    suffix = ".manifest"

    def watch(self, which: int, place: int) -> ManifestWatch:
        return ManifestWatch(self.storage, self.drops[which], self.state(which, place), most=2)

    def end(self, daemon: Daemon, there: set[tuple[str, str]]) -> None:
        assert there <= {(one.location.uri, one.etag) for one in daemon.runs.values()}


class NewFiles(Anything):
    """Each version of a local file has an ETag of its own, so that none at all may be taken twice."""

    def watch(self, which: int, place: int) -> NewFilesWatch:
        state = self.state(which, place)
        return NewFilesWatch(self.storage, self.drops[which], state, state.child("manifests/"), "new", 0, 2, 8, most=2)

    @rule(which=WHICH, max_files=st.integers(1, 3), quiet=st.booleans())
    def configure(self, which: int, max_files: int, quiet: bool) -> None:
        daemon = self.daemons[which]
        daemon.tick(using=replace(daemon.watch, max_files=max_files, settle_seconds=0 if quiet else 1000))

    def end(self, daemon: Daemon, there: set[tuple[str, str]]) -> None:
        taken = listed(self.storage, list(daemon.runs.values()))
        assert len(taken) == len(set(taken)), "taken twice"
        assert there <= set(taken), "missed"
        which = self.daemons.index(daemon)
        folders = [self.state(which, place).child("manifests/") for place in (0, 1, 2)]
        made = {info.location for folder in folders for info in self.storage.list(folder)}
        assert {one for one in made if one.name.endswith(".manifest")} == {one.location for one in daemon.runs.values()}


SETTINGS = settings(max_examples=25, stateful_step_count=30, deadline=None)


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
