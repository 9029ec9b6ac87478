"""What stands where below an output folder, the service's own records under `_batch/` included."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from batch_pipeline.locations import Location

_PART = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")
RESULT_SUFFIX = "_result.txt"


@dataclass(frozen=True)
class OutputLayout:
    """The names below one output folder."""

    output: Location

    @property
    def results(self) -> Location:
        return self.output.child("infer-result/")

    def result(self, relative: str) -> Location:
        """The result named `relative` below `infer-result/`."""
        return self.results.child(relative)

    def result_manifest(self, node: int) -> Location:
        return self.output.child(f"infer-result-{node}.manifest")

    def error_manifest(self, node: int) -> Location:
        return self.output.child(f"infer-error-{node}.manifest")

    @property
    def records(self) -> Location:
        return self.output.child("_batch/")

    @property
    def lock(self) -> Location:
        return self.records.child("lock.json")

    @property
    def service(self) -> Location:
        """Whose folder this is and what the service was made from."""
        return self.records.child("service.json")

    @property
    def finished(self) -> Location:
        """The summary, written after every manifest."""
        return self.records.child("summary.json")

    @property
    def plan(self) -> Location:
        return self.records.child("plan/plan.json")

    @property
    def inputs(self) -> Location:
        """The table of the input list: lines and digests."""
        return self.records.child("plan/inputs.parquet")

    @property
    def marks(self) -> Location:
        """Where some lines of the manifest begin, as it was read last: a renewed share link may be longer."""
        return self.records.child("plan/marks.parquet")

    def shard(self, node: int) -> Location:
        return self.records.child(f"plan/shard-{node}.parquet")

    @property
    def ledger(self) -> Location:
        return self.records.child("ledger/")

    def progress(self, node: int) -> Location:
        return self.records.child(f"progress/{node}.json")

    def at_work(self, node: int) -> Location:
        """There while the node works, and after it died."""
        return self.records.child(f"at-work/{node}")

    @property
    def node_records(self) -> Location:
        """What each node spent, try by try."""
        return self.records.child("nodes/")

    @property
    def parts(self) -> Location:
        return self.records.child("parts/")

    def part(self, line: int, part: int) -> Location:
        """One node's piece of the result of a divided CSV."""
        return self.parts.child(f"{line}-{part}")

    def part_of(self, location: Location) -> tuple[int, int] | None:
        """Line and part of such a piece; None for what is none."""
        found = _PART.fullmatch(location.key[len(self.parts.key) :])
        return (int(found[1]), int(found[2])) if found else None


def result_name(name: str, suffix: str) -> str:
    """Where below `infer-result/` the result of an input of this name stands."""
    return f"{name}{suffix}{RESULT_SUFFIX}"


def result_digest(relative: str) -> bytes:
    """16 bytes that stand for a result's name in the records, which never hold the name itself."""
    return hashlib.sha256(relative.encode("utf-8", "surrogatepass")).digest()[:16]
