"""The protocol of a service's records, checked as a state machine: whatever dies or fails, wherever, and in any order.

The real service works on a real folder of the local disk; each step is a process whose storage may come to its fate.
A quick part of it here; `make test-faults` lets it go on for longer, and leaves the marks of the dead where they are.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from batch_pipeline import ledger, service
from batch_pipeline.deployment import Deployment
from batch_pipeline.errors import AccountingFailed, BatchPipelineError, ServiceChanged
from batch_pipeline.ownership import Owner, ProcessIdentity
from batch_pipeline.parameters import ServiceParameters
from batch_pipeline.summary import Summary
from batch_pipeline_tests.faults import outputs
from batch_pipeline_tests.faults.mortal import Died, Fate, MortalStorage
from batch_pipeline_tests.places import ROW, Place, run_service

TRIALS = int(os.environ.get("FAULT_TRIALS", "0"))
EXAMPLES = 10 * TRIALS or 15
SERVICE = "flowers"
VARIANTS: tuple[dict[str, Any], ...] = ({"node_count": 3}, {"node_count": 2, "join_input": True})
"""What a service may be made over from one to the other."""
PLACES = (
    *("", "lock", "service.json", "plan/", "plan.json", "at-work", "ledger/", "composed", "parts/", "infer-result/"),
    *("infer-result/big", "manifest", "infer-error", "progress", "nodes/", "summary.json"),
)
HOWS = ("dies before", "dies halfway", "dies after", "fails before", "fails after")
FATES = st.builds(Fate, st.sampled_from(PLACES), st.sampled_from((0, 0, 0, 1, 1, 2)), st.sampled_from(HOWS))
LATE = "late.csv"


@dataclasses.dataclass
class World:
    """Inputs, a model, and what undisturbed runs make of them."""

    place: Place
    lists: tuple[tuple[str, tuple[str | None, ...]], ...]
    """Each input_path, and the names of its inputs by line; None for a line that is none."""
    references: dict[tuple[int, int, bool], tuple[dict[str, bytes], Summary]] = dataclasses.field(default_factory=dict)
    fates: Counter[str] = dataclasses.field(default_factory=Counter)
    """How often a process came to each, for the test to see that there was something to survive."""
    outputs: int = 0

    @classmethod
    def at(cls, root: Path) -> World:
        place = Place.at(root)
        big = "".join(f"5.1,3.{number % 10},1.4,0.{number % 7}\n" for number in range(300))
        rows = {"a.csv": 2 * f"{ROW}\n", "big.csv": big, "mixed.csv": f"{ROW}\n1,2\n", "notes.txt": "no rows"}
        found = {name: place.put(name, text) for name, text in rows.items()}
        found[LATE] = f"file://{root}/late/{LATE}"
        (root / "late").mkdir()
        listed = ("big.csv", "a.csv", "a.csv", LATE, None, "mixed.csv", "big.csv", "notes.txt")
        manifest = place.manifest(*({"no": 1} if name is None else found[name] for name in listed))
        return cls(place, ((f"file://{root}/in/", tuple(rows)), (manifest, listed)))

    def parameters(self, inputs: int, variant: int, output: str, **changes: Any) -> ServiceParameters:
        return self.place.parameters(
            input_path=self.lists[inputs][0],
            output_path=f"file://{self.place.root}/{output}/",
            **VARIANTS[variant],
            **changes,
        )

    def put_late(self) -> None:
        (self.place.root / "late" / LATE).write_text(3 * f"{ROW}\n")

    def take_late(self) -> None:
        (self.place.root / "late" / LATE).unlink(missing_ok=True)

    @property
    def is_late_there(self) -> bool:
        return (self.place.root / "late" / LATE).exists()

    def reference(self, inputs: int, variant: int, late: bool) -> tuple[dict[str, bytes], Summary]:
        """What an undisturbed run publishes, and how it ends."""
        key = inputs, variant, late
        if key not in self.references:
            was_there = self.is_late_there
            self.put_late() if late else self.take_late()
            parameters = self.parameters(inputs, variant, f"alone-{inputs}-{variant}-{late}")
            summary = run_service(parameters, self.place.deployment)
            self.put_late() if was_there else self.take_late()
            self.references[key] = outputs.published(self.place.deployment.storage, parameters.output), summary
        return self.references[key]


class ServiceMachine(RuleBasedStateMachine):
    """One output folder, and what is done to it. The rules have no preconditions: one that cannot be does nothing."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        world.outputs += 1
        self.name = f"out-{world.outputs}"
        self.output = world.place.root / self.name
        self.parameters: ServiceParameters | None = None
        self.shards: tuple[service.Shard, ...] = ()
        self.owner = Owner("", SERVICE)
        self.runs = 0
        self.late_was_put = False
        self.fates: list[Fate] = []
        """What the next steps come to."""
        self.summary: Summary | None = None
        self.summary_seen: tuple[int, int] | None = None
        self.published: dict[Path, tuple[int, int]] = {}
        """The results when a run had ended."""
        self.looked_at: set[Path] = set()
        """Records."""
        self.wrong: list[str] = []

    @initialize(inputs=st.integers(0, 1), keeps_marks=st.booleans())
    def begin(self, inputs: int, keeps_marks: bool) -> None:
        self.inputs = inputs
        self.variant = 0
        self.names = self.world.lists[inputs][1]
        # A node that finds its mark starts a process that it watches over: seconds each time.
        self.keeps_marks = keeps_marks and TRIALS > 0
        self.world.take_late()

    # --- what may happen ---------------------------------------------------------------------------------------

    @rule(
        fates=st.lists(FATES, max_size=4),
        variant=st.sampled_from((0, 0, 1)),
        overwrite=st.booleans(),
        threshold=st.sampled_from((0, 1)),
        goes_on=st.booleans(),
        order=st.permutations(range(3)),
        lost=st.none() | st.integers(0, 9),
        comes=st.booleans(),
    )
    def attempt(
        self,
        fates: list[Fate],
        variant: int,
        overwrite: bool,
        threshold: float,
        goes_on: bool,
        order: list[int],
        lost: int | None,
        comes: bool,
    ) -> None:
        """A run of the service. `goes_on`: a step that dies or fails is tried again; else that is the run's end.

        `lost`: somebody removes a result, or a part of one, before the last step. `comes`: after the run the input is
        there that was not.
        """
        self.fates = fates
        if self.deploy(variant, overwrite, threshold):
            nodes = [partial(self.infer, node) for node in order]
            for step in (self.plan, *nodes, partial(self.lose, lost), self.publish):
                while not (is_done := step()) and goes_on:
                    pass
                if not is_done:
                    break
        if comes:
            self.late_was_put = True
            self.world.put_late()

    @rule(fate=FATES, step=st.sampled_from(("plan", "infer", "publish")), node=st.integers(0, 2))
    def step_again(self, fate: Fate, step: str, node: int) -> None:
        """A step of the same run once more, or too early: an orchestrator may lose what became of one."""
        self.fates = [fate]
        if step == "infer":
            self.infer(node)
        elif self.shards:
            self.plan() if step == "plan" else self.publish()

    def teardown(self) -> None:
        """A last attempt, which nothing disturbs, comes to what an undisturbed run does."""
        try:
            if hasattr(self, "inputs"):
                self.end()
        finally:
            self.world.take_late()

    def end(self) -> None:
        made_of = self.made_of()
        self.fates = []
        self.deploy(self.variant if made_of is None else made_of, overwrite=False, threshold=0)
        self.plan()
        for node in range(len(self.shards)):
            self.infer(node)
        assert self.publish()
        assert self.parameters is not None
        published, expected = self.world.reference(self.inputs, self.variant, self.world.is_late_there)
        found = outputs.published(self.world.place.deployment.storage, self.parameters.output)
        if self.late_was_put:
            # The inputs were divided by the sizes that were known then.
            found, published = _of_all_nodes(found), _of_all_nodes(published)
        assert found == published
        assert self.summary is not None
        assert _counts(self.summary) == _counts(expected)
        assert not (self.output / "_batch/lock.json").exists()

    # --- how it is done, and what must hold ----------------------------------------------------------------------

    def deploy(self, variant: int, overwrite: bool, threshold: float) -> bool:
        self.runs += 1
        # Whose process ended is no holder of the lock; that of a living one is tested elsewhere.
        gone = dataclasses.replace(ProcessIdentity.current(), started="0")
        self.owner = Owner(f"run-{self.runs}", SERVICE, gone)
        self.shards, self.parameters = (), None
        parameters = self.world.parameters(
            self.inputs,
            variant,
            self.name,
            if_changed="overwrite" if overwrite else "refuse",
            error_threshold=threshold,
        )
        made_of = self.made_of()
        if overwrite and made_of != variant:
            self.published = {}
        try:
            report = self.step(lambda deployment: service.ingest(parameters, deployment, self.owner))
        except ServiceChanged:
            assert made_of not in (None, variant)
            assert not overwrite
            return False
        if report is None:
            return False
        assert overwrite or made_of in (None, variant)
        assert report.inputs == len(self.names)
        self.parameters, self.variant = parameters.of(report.made_from), variant
        return True

    def plan(self) -> bool:
        parameters = self.parameters
        assert parameters is not None
        shards = self.step(lambda deployment: service.plan(parameters, deployment, self.owner))
        self.shards = shards or ()
        return shards is not None

    def infer(self, node: int) -> bool:
        if node >= len(self.shards):
            return True
        shard = self.shards[node]
        return self.step(lambda deployment: service.infer(shard, deployment, self.owner)) is not None

    def lose(self, which: int | None) -> bool:
        found = sorted([*self.output.glob("infer-result/*.txt"), *self.output.glob("_batch/parts/*-*")])
        if which is not None and found and not any(self.output.glob("*.manifest")):
            path = found[which % len(found)]
            path.unlink()
            self.published.pop(path, None)
        return True

    def publish(self) -> bool:
        parameters, lacks = self.parameters, self.lacking()
        assert parameters is not None
        try:
            self.summary = self.step(lambda deployment: service.publish(parameters, deployment, self.owner))
        except AccountingFailed as error:
            refused = error
        else:
            refused = None
        if refused is not None:
            assert lacks, refused
            assert 0 < refused.missing <= refused.inputs == len(self.names)
            assert {row["line"] for row in refused.first} <= lacks
            return True
        if self.summary is None:
            return False
        assert lacks == set()
        assert self.summary.inputs == self.summary.succeeded + self.summary.failed == len(self.names)
        late = {True, False} if self.late_was_put else {False}
        known = [self.world.reference(self.inputs, self.variant, one)[1] for one in late]
        assert _counts(self.summary) in map(_counts, known)
        assert self.left_over() == []
        self.published = {path: _seen(path) for path in self.output.glob("infer-result/*")}
        return True

    def step(self, what: Callable[[Deployment], Any]) -> Any:
        """Does one step in a process of its own, so to say. None where that died, or met a store that failed."""
        deployment = Deployment(self.world.place.deployment.settings)
        output = self.world.parameters(self.inputs, 0, self.name).output
        storage = MortalStorage(output, self.fates, self.look, allow_local=True)
        deployment.storage = storage
        finished = self.finished()
        gc.collect()  # what died before holds nothing any more, as its exceptions may do here
        try:
            return what(deployment)
        except Died:
            assert storage.dead
            if not self.keeps_marks:
                for mark in self.output.glob("_batch/at-work/*"):
                    mark.unlink()
            return None
        except BatchPipelineError as error:
            if storage.met is None or "injected" not in error.message:
                raise
            return None
        finally:
            if storage.met is not None:
                self.world.fates[storage.met.how] += 1
                self.fates = [fate for fate in self.fates if fate is not storage.met]
            self.check(finished)

    def check(self, finished: dict[Path, tuple[int, int]]) -> None:
        """After a step: what was written down as finished before it was not made again."""
        assert self.wrong == []
        again = [str(path) for path, seen in finished.items() if path.exists() and _seen(path) != seen]
        assert again == [], "computed again"

    def look(self) -> None:
        """After every single change of the folder, as any reader may look then."""
        for path in {*self.output.glob("_batch/ledger/*.jsonl")} - self.looked_at:
            self.looked_at.add(path)
            self.wrong += [f"{it} was written down before it was there" for it in self.absent(path)]
        manifests = sorted(self.output.glob("infer-result-*.manifest"))
        names = [json.loads(line)["inference-loc"] for path in manifests for line in path.read_bytes().splitlines()]
        self.wrong += [f"{name} is absent" for name in names if not Path(name.removeprefix("file://")).exists()]
        made_of = self.made_of()
        if made_of is None or len(manifests) < int(VARIANTS[made_of]["node_count"]):
            return
        errors = [
            json.loads(line)
            for path in self.output.glob("infer-error-*.manifest")
            for line in path.read_bytes().splitlines()
        ]
        listed = len(names) + sum("failed_rows" not in error for error in errors)
        if listed != len(self.names):
            self.wrong.append(f"all result manifests are there, and list {listed} inputs")
        summary = self.output / "_batch/summary.json"
        if summary.exists() and _seen(summary) != self.summary_seen:
            self.summary_seen = _seen(summary)
            self.wrong += [f"{name} is left beside the summary" for name in self.left_over()]

    def absent(self, records: Path) -> list[Path]:
        """What records that have just appeared say is finished, and is not there."""
        found = map(json.loads, records.read_bytes().splitlines())
        return [path for it in found if "error" not in it and not (path := self.made(it["line"], it["part"])).exists()]

    def records(self) -> dict[tuple[int, int], dict[str, Any]]:
        """The last record of each unit, the order of units that of these."""
        last: dict[tuple[int, int], dict[str, Any]] = {}
        for path in sorted(self.output.glob("_batch/ledger/*.jsonl")):
            for line in path.read_bytes().splitlines():
                record = json.loads(line)
                key = record["line"], record["part"]
                last.pop(key, None)
                last[key] = record
        return last

    def finished(self) -> dict[Path, tuple[int, int]]:
        """What must not be made again: what was published, or the ledger has and storage has as it was written."""
        last = self.records()
        whole = {line for line, part in _newest(last) if part == ledger.WHOLE}
        found = dict(self.published)
        for (line, part), record in last.items():
            path = self.made(line, part)
            # A whole that somebody removed is put together of parts that are all made anew.
            counts = line in whole if part == ledger.WHOLE else (line, ledger.WHOLE) not in last
            if counts and "error" not in record and path.exists() and path.stat().st_size == record["size"]:
                found[path] = _seen(path)
        return found

    def lacking(self) -> set[int]:
        """The lines that are not accounted for by records and storage; the model's own account."""
        last = self.records()
        newest = set(_newest(last))
        lacks = set()
        for line, name in enumerate(self.names, 1):
            if name is None or name in self.names[: line - 1]:
                continue
            parts = self.parts_of(line)
            if (line, ledger.WHOLE) in newest:
                units = {self.result(line): last[line, ledger.WHOLE]}
            elif not all((line, part) in last for part in parts):
                lacks.add(line)
                continue
            elif self.is_divided(line):
                units = {self.part(line, part): last[line, part] for part in parts}
            else:
                units = {self.result(line): last[line, 0]}
            failed = any("error" in record for record in units.values())
            if not failed and any(not path.exists() or path.stat().st_size != it["size"] for path, it in units.items()):
                lacks.add(line)
        return lacks

    def is_divided(self, line: int) -> bool:
        return self.names[line - 1] == "big.csv"

    def parts_of(self, line: int) -> range:
        """As the nodes' tables have them."""
        tables = map(pl.read_parquet, self.output.glob("_batch/plan/shard-*.parquet"))
        return range(max(count for table in tables for count in table.filter(pl.col("line") == line)["parts"]))

    def made(self, line: int, part: int) -> Path:
        """Where a unit's result is."""
        return self.part(line, part) if self.is_divided(line) and part != ledger.WHOLE else self.result(line)

    def part(self, line: int, part: int) -> Path:
        return self.output / f"_batch/parts/{line}-{part}"

    def result(self, line: int) -> Path:
        return self.output / f"infer-result/{self.names[line - 1]}_result.txt"

    def made_of(self) -> int | None:
        """The variant that the folder's record says."""
        path = self.output / "_batch/service.json"
        if not path.exists():
            return None
        count = json.loads(path.read_bytes())["made_from"]["node_count"]
        return next(number for number, variant in enumerate(VARIANTS) if variant["node_count"] == count)

    def left_over(self) -> list[str]:
        """Parts, and what writers that died have left."""
        return sorted(
            str(path) for path in (*self.output.glob("_batch/parts/*"), *self.output.rglob(".batch-pipeline-*"))
        )


def _newest(last: dict[tuple[int, int], dict[str, Any]]) -> list[tuple[int, int]]:
    """Of each line the unit that was recorded last."""
    return list({line: (line, part) for line, part in last}.values())


def _seen(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _of_all_nodes(published: dict[str, bytes]) -> dict[str, bytes]:
    """With the manifests of all nodes put together and sorted."""
    found: dict[str, bytes] = {}
    for name, data in sorted(published.items()):
        kind = name.rpartition("-")[0] if name.endswith(".manifest") else name
        found[kind] = b"".join(sorted((found.get(kind, b"") + data).splitlines(keepends=True)))
    return found


def _counts(summary: Summary) -> tuple[int, ...]:
    return summary.inputs, summary.succeeded, summary.failed, summary.rows, summary.failed_rows, summary.size


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # a dead process has no threads
def test_whatever_dies_or_fails_a_last_attempt_comes_to_what_an_undisturbed_run_does(tmp_path, monkeypatch):
    # Each record is written at once, so that a process dies between any two.
    monkeypatch.setattr(ledger, "FLUSH_RECORDS", 1)
    world = World.at(tmp_path)
    run_state_machine_as_test(
        lambda: ServiceMachine(world),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=5,
            deadline=None,
            derandomize=not TRIALS,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert set(world.fates) == set(HOWS)
    assert world.fates.total() > EXAMPLES // 2
