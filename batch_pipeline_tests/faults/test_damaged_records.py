"""Whatever bytes stand in the place of a service's own records: read, or an error that names the record."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipeline import service
from batch_pipeline.errors import BatchPipelineError, RecordDamaged
from batch_pipeline.layout import OutputLayout
from batch_pipeline.ledger import recorded
from batch_pipeline.locations import Location
from batch_pipeline.node_records import load_node_records
from batch_pipeline.ownership import Owner
from batch_pipeline.plan import load_marks, load_plan, load_shard, stored_tables
from batch_pipeline.storage import Storage
from batch_pipeline.summary import load_summary, progress_of
from batch_pipeline_tests.faults.fuzzing import bounded_memory, damaged, ends, examples
from batch_pipeline_tests.places import ROW, Place

OWNER = Owner("run", "flowers")
WORDS = [
    *rb'" \ { } [ ] : , null true -1 0.5 NaN "line" "division":"",'.split(),
    *(b"\n", b"PAR1", b'{"line":1}\n', b"\x15", b"\x00" * 4, b"\xff" * 4),
]
Read = Callable[[Storage, OutputLayout], object]


def tables(storage: Storage, layout: OutputLayout) -> object:
    with stored_tables(storage, layout.inputs) as stored:
        return list(stored.read()), list(stored.read(["result"]))


READERS: dict[str, Read] = {
    "plan/plan.json": load_plan,
    "plan/inputs.parquet": tables,
    "plan/marks.parquet": load_marks,
    "plan/shard-0.parquet": lambda storage, layout: load_shard(storage, layout, 0).rows(),
    "ledger/": lambda storage, layout: [
        table.rows() for table in recorded(storage, layout, load_plan(storage, layout).division)
    ],
    "progress/0.json": lambda storage, layout: progress_of(storage, layout, "flowers"),
    "nodes/": load_node_records,
    "summary.json": load_summary,
}


class Worked:
    """An output folder whose nodes have done their work, and all of its records once it was published."""

    def __init__(self, root: Path) -> None:
        self.place = Place.at(root)
        sources = [self.place.put(name) for name in ("a.csv", "b.csv", "c.txt")]
        big = self.place.put("big.csv", 300 * f"{ROW}\n")
        listing = self.place.manifest(*sources, big, sources[0], {"no": 1})
        self.parameters = self.place.parameters(input_path=listing, node_count=2, error_threshold=1)
        service.ingest(self.parameters, self.place.deployment, OWNER)
        for shard in service.plan(self.parameters, self.place.deployment, OWNER):
            service.infer(shard, self.place.deployment, OWNER)
        (self.output / "_batch/lock.json").unlink()
        self.kept = root / "kept"
        shutil.copytree(self.output, self.kept)
        service.publish(self.parameters, self.place.deployment, OWNER)
        self.records = {
            path.relative_to(self.output / "_batch").as_posix(): path.read_bytes()
            for path in sorted((self.output / "_batch").rglob("*"))
            if path.is_file()
        }

    @property
    def output(self) -> Path:
        return self.place.output

    def start_again(self) -> None:
        """The nodes have done their work."""
        shutil.rmtree(self.output)
        shutil.copytree(self.kept, self.output)

    def of(self, kind: str) -> list[str]:
        return [name for name in self.records if name.startswith(kind)]


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Worked:
    return Worked(tmp_path_factory.mktemp("worked"))


@pytest.mark.parametrize("kind", READERS)
def test_a_record_is_read_or_named(worked: Worked, tmp_path: Path, kind: str) -> None:
    storage, layout = Storage(allow_local=True), OutputLayout(Location("", f"{tmp_path}/"[1:], "file"))
    for name, data in worked.records.items():
        storage.write(layout.records.child(name), data)
    READERS[kind](storage, layout)
    name = worked.of(kind)[0]
    record = layout.records.child(name)

    @examples(150)
    @given(damaged([worked.records[one] for one in worked.of(kind)], WORDS))
    def read(data: bytes) -> None:
        storage.write(record, data)
        with ends():
            try:
                READERS[kind](storage, layout)
            except RecordDamaged as error:
                assert str(record) in error.message  # noqa: PT017
                assert "delete it" in error.message  # noqa: PT017

    with bounded_memory(1500):
        read()


@examples(25, share=0.1)
@given(data=st.data())
def test_a_service_over_a_damaged_record_ends_by_an_error_of_ours(worked: Worked, data: st.DataObject) -> None:
    worked.start_again()
    name = data.draw(st.sampled_from([name for name in worked.records if name != "lock.json"]))
    (worked.output / "_batch" / name).write_bytes(data.draw(damaged([worked.records[name]], WORDS)))
    with ends(120), suppress(BatchPipelineError):
        worked.place.run("second", input_path=worked.parameters.input_path, node_count=2, error_threshold=1)


@pytest.mark.parametrize("kind", READERS)
def test_a_service_goes_on_once_a_damaged_record_was_deleted(worked: Worked, kind: str) -> None:
    """As the error says."""
    worked.start_again()
    for name in worked.of(kind):
        (worked.output / "_batch" / name).unlink(missing_ok=True)
    summary = worked.place.run("second", input_path=worked.parameters.input_path, node_count=2, error_threshold=1)
    assert (summary.inputs, summary.succeeded, summary.rows) == (6, 4, 303)


def test_a_record_without_end_is_not_read_whole(worked: Worked) -> None:
    worked.start_again()
    plan = worked.output / "_batch/plan/plan.json"
    with plan.open("wb") as file:
        file.truncate(4 << 30)
    with bounded_memory(300), pytest.raises(RecordDamaged, match=r"plan\.json is damaged \(it has more than 16 MiB\)"):
        load_plan(Storage(allow_local=True), OutputLayout(worked.parameters.output))
