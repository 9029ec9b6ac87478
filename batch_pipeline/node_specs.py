"""The table of node specs: what a compute node may be, and which models may use which. No dagster here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from batch_pipeline.documents import parse_yaml, read_text
from batch_pipeline.errors import InvalidParameters, InvalidSettings, Problem, Refused

Audience = Literal["own", "auto"]


@dataclass(frozen=True)
class NodeSpec:
    """One kind of compute node."""

    id: str
    title: str
    cpu: int
    """CPU cores; bounds the threads of one node."""
    memory_gib: float
    gpu: int = 0
    gpu_type: str | None = None
    audience: Audience = "own"
    """`own`: the user's own models; `auto`: only models of automatic learning (自动学习), which use nothing else."""
    needs_grant: bool = False
    """Whether the operator must grant it before it may be used (需要申请)."""
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    """ONNX Runtime execution providers, in order. Each must be there: a node never falls back unnoticed."""
    price_per_hour: float | None = None
    tags: dict[str, object] = field(default_factory=dict, hash=False)
    """More Dagster tags for the spec's inference op."""

    @property
    def identifier(self) -> str:
        """The id in letters, digits and `_`, as names of ops and pools must be."""
        return re.sub(r"[^A-Za-z0-9_]", "_", self.id)


_CUDA = ("CUDAExecutionProvider",)
BUILT_IN = (
    NodeSpec("cpu-2u8g", "CPU：2核 8GiB", 2, 8),
    NodeSpec("gpu-2u8g-p4", "CPU：2核 8GiB GPU：1*P4", 2, 8, 1, "P4", needs_grant=True, providers=_CUDA),
    NodeSpec("auto-cpu", "自动学习规格（CPU）", 2, 8, audience="auto"),
    NodeSpec("auto-gpu", "自动学习规格（GPU）", 2, 8, 1, audience="auto", providers=_CUDA),
)


class NodeSpecs:
    """The node specs of a deployment, in the table's order. Raises `InvalidSettings` where two clash."""

    def __init__(self, specs: Iterable[NodeSpec] = BUILT_IN) -> None:
        self._specs = {spec.id: spec for spec in specs}
        identifiers: dict[str, str] = {}
        for spec in self:
            other = identifiers.setdefault(spec.identifier, spec.id)
            if other != spec.id:
                raise InvalidSettings(
                    f"node specs {other!r} and {spec.id!r} are too alike: both read {spec.identifier}"
                )

    def __iter__(self) -> Iterator[NodeSpec]:
        return iter(self._specs.values())

    def __len__(self) -> int:
        return len(self._specs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NodeSpecs) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __contains__(self, spec_id: object) -> bool:
        return spec_id in self._specs

    def __getitem__(self, spec_id: str) -> NodeSpec:
        return self._specs[spec_id]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._specs)

    def usable(self, *, automatic_learning: bool, granted: Collection[str]) -> tuple[NodeSpec, ...]:
        """The specs that a model of this kind may use here."""
        audience = "auto" if automatic_learning else "own"
        return tuple(
            spec for spec in self if spec.audience == audience and (not spec.needs_grant or spec.id in granted)
        )

    def check(self, spec_id: str, *, automatic_learning: bool, granted: Collection[str]) -> NodeSpec:
        """The spec, if a model of this kind may use it here. Raises `InvalidParameters` listing those it may."""
        usable = self.usable(automatic_learning=automatic_learning, granted=granted)
        if spec_id in self and self[spec_id] in usable:
            return self[spec_id]
        may = "may be used: " + (", ".join(spec.id for spec in usable) or "none")
        raise InvalidParameters((Problem("node_spec", f"{self._reason(spec_id, automatic_learning)}; {may}"),))

    def _reason(self, spec_id: str, automatic_learning: bool) -> str:
        if spec_id not in self:
            return f"{spec_id!r} does not exist"
        if automatic_learning and self[spec_id].audience != "auto":
            return f"{spec_id!r} is not for models of automatic learning"
        if not automatic_learning and self[spec_id].audience == "auto":
            return f"{spec_id!r} is only for models of automatic learning"
        return f"{spec_id!r} must be granted by the operator (BATCH_PIPELINE_GRANTED_SPECS)"


class _Row(BaseModel):
    """One entry of the operator's file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
    title: str = ""
    cpu: int = Field(ge=1)
    memory_gib: float = Field(gt=0, allow_inf_nan=False)
    gpu: int = Field(default=0, ge=0)
    gpu_type: str | None = None
    audience: Audience = "own"
    needs_grant: bool = False
    providers: list[str] | None = Field(default=None, min_length=1)
    price_per_hour: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    tags: dict[str, object] = {}

    def spec(self) -> NodeSpec:
        providers = tuple(self.providers or (_CUDA if self.gpu else ("CPUExecutionProvider",)))
        values = self.model_dump(exclude={"title", "providers"})
        return NodeSpec(title=self.title or self.id, providers=providers, **values)


def load_node_specs(path: Path | None = None) -> NodeSpecs:
    """The built-in table, extended by a YAML file whose top is `node_specs`, a list of `NodeSpec` fields.

    An entry with the id of a built-in one replaces it. Raises `InvalidSettings` that names the file and the entry.
    """
    return NodeSpecs((*BUILT_IN, *(_read(path) if path is not None else ())))


def _read(path: Path) -> list[NodeSpec]:
    what = f"node specs {path}"
    try:
        data = parse_yaml(read_text(path, what), what)
    except Refused as error:
        raise InvalidSettings(error.message) from error
    except OSError as error:
        raise InvalidSettings(f"{what}: {error.strerror}") from error
    rows = data.get("node_specs") if isinstance(data, dict) and set(data) == {"node_specs"} else None
    if not isinstance(rows, list):
        raise InvalidSettings(f"node specs {path}: must hold one key, node_specs, with a list of specs")
    specs = [_spec(path, number, row) for number, row in enumerate(rows, 1)]
    repeated = sorted(id_ for id_, times in Counter(spec.id for spec in specs).items() if times > 1)
    if repeated:
        raise InvalidSettings(f"node specs {path}: more than one entry has the id {repeated[0]}")
    return specs


def _spec(path: Path, number: int, row: object) -> NodeSpec:
    try:
        return _Row.model_validate(row).spec()
    except ValidationError as error:
        name = row["id"] if isinstance(row, dict) and "id" in row else f"entry {number}"
        issues = "; ".join(f"{'.'.join(map(str, issue['loc']))}: {issue['msg']}" for issue in error.errors())
        raise InvalidSettings(f"node specs {path}: {name}: {issues.removeprefix(': ')}") from error
