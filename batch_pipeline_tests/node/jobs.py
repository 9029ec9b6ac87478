"""Jobs for a compute node over local files and a package made of an exported model."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batch_pipeline.locations import Location
from batch_pipeline.models.binder import bind
from batch_pipeline.models.mapping import parse
from batch_pipeline.models.status import inspect_package
from batch_pipeline.node.job import NodeJob, Progress, Unit, UnitError, UnitResult
from batch_pipeline.node.run import run_node
from batch_pipeline.parameters import CsvOptions
from batch_pipeline.storage import Storage

EXPORTED = Path(__file__).parents[1] / "exported"


class Records:
    """A ledger in memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.outcomes: list[UnitResult | UnitError] = []

    def record(self, outcome: UnitResult | UnitError) -> None:
        with self._lock:
            self.outcomes.append(outcome)

    @property
    def by_line(self) -> dict[int, UnitResult | UnitError]:
        return {outcome.line: outcome for outcome in self.outcomes}


def location(path: Path) -> Location:
    return Location("", str(path).lstrip("/"), "file")


def unit(source: Path, line: int = 0, **more: Any) -> Unit:
    """A unit whose result goes to `<source>_result.txt`, or to one of its parts."""
    result = source.with_name(f"{source.name}_result.txt.{more.get('part', 0)}")
    return Unit(line, hashlib.sha256(source.name.encode()).hexdigest(), location(source), location(result), **more)


def result(source: Path, part: int = 0) -> bytes:
    return source.with_name(f"{source.name}_result.txt.{part}").read_bytes()


def rows_schema(*names: str, kind: str = "number", **kinds: str) -> dict[str, Any]:
    """`{"rows": [{name: kind, …}]}`."""
    leaves = {name: {"type": one} for name, one in (dict.fromkeys(names, kind) | kinds).items()}
    inner = {"type": "object", "properties": leaves}
    return {"type": "object", "properties": {"rows": {"type": "array", "items": [inner]}}}


def job(
    model: str | Path,
    folder: Path,
    units: Sequence[Unit] = (),
    *,
    request: dict[str, Any] | None = None,
    response: dict[str, Any] | None = None,
    rule: dict[str, Any] | None = None,
    csv: CsvOptions | None = None,
    preprocessor: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    **more: Any,
) -> NodeJob:
    """A job for a package of an exported model (or of an ONNX file). Without a request the API takes files."""
    folder.mkdir(exist_ok=True)
    shutil.copy(model if isinstance(model, Path) else EXPORTED / f"{model}.onnx", folder / "model.onnx")
    files = {"type": "object", "properties": {"images": {"type": "file"}}}
    content = "multipart/form-data" if request is None else "application/json"
    api: dict[str, Any] = {"request": {"Content-type": content, "data": request or files}}
    if response is not None:
        api["response"] = {"data": response}
    (folder / "config.json").write_text(
        json.dumps({"model_algorithm": "test", "model_type": "ONNX", "apis": [api]} | (config or {}))
    )
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    found = inspect_package(folder)
    assert found.config is not None, found.reasons
    assert found.onnx is not None, found.reasons
    assert not found.reasons, found.reasons
    binding = bind(found.config, found.config.apis[0], found.onnx, found.labels)
    csv = csv or CsvOptions()
    mapping = parse(rule, request, header=csv.header) if request is not None else None
    options: dict[str, Any] = {"join_input": False, "threads": 2, **more}
    return NodeJob(iter(units), len(units), folder, "model.onnx", binding, mapping, csv, **options)


def run(job: NodeJob, **more: Any) -> tuple[Records, Progress, tuple[dict[str, object], ...]]:
    """The job, run over local files."""
    records = Records()
    progress, sample = run_node(job, Storage(allow_local=True), None, records, **more)  # type: ignore[arg-type]
    return records, progress, sample
