from __future__ import annotations

from pathlib import Path

import pytest

from batch_pipeline.errors import InvalidParameters, InvalidSettings
from batch_pipeline.node_specs import load_node_specs

BUILT_IN = ("cpu-2u8g", "gpu-2u8g-p4", "auto-cpu", "auto-gpu")


def table(folder: Path, text: str) -> Path:
    path = folder / "specs.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_built_in_table() -> None:
    specs = load_node_specs()
    assert specs.ids == BUILT_IN
    gpu = specs["gpu-2u8g-p4"]
    assert (gpu.cpu, gpu.memory_gib, gpu.gpu, gpu.gpu_type, gpu.needs_grant) == (2, 8, 1, "P4", True)
    assert gpu.providers == ("CUDAExecutionProvider",)
    assert gpu.identifier == "gpu_2u8g_p4"
    assert {hash(spec) for spec in specs}


def test_the_operator_extends_it_and_replaces_in_it(tmp_path: Path) -> None:
    text = """
    node_specs:
      - {id: cpu-8u32g, title: 8核, cpu: 8, memory_gib: 32, price_per_hour: 0.5, tags: {pool: large}}
      - {id: gpu-big, cpu: 8, memory_gib: 32, gpu: 1, providers: [TensorrtExecutionProvider, CUDAExecutionProvider]}
      - {id: cpu-2u8g, cpu: 2, memory_gib: 16}
    """
    specs = load_node_specs(table(tmp_path, text))
    assert specs.ids == (*BUILT_IN, "cpu-8u32g", "gpu-big")
    assert specs["cpu-8u32g"].tags == {"pool": "large"}
    assert specs["gpu-big"].providers == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert specs["cpu-2u8g"].memory_gib == 16


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", r"specs\.yaml, line 1: not YAML: "),
        ("specs: []", "must hold one key, node_specs"),
        ("node_specs: 3", "with a list"),
        ("node_specs: [{id: a, cpu: 0, memory_gib: 1}]", "a: cpu"),
        ("node_specs: [{id: a, cpu: 1, memory_gib: 1, gpus: 1}]", "a: gpus"),
        ("node_specs: [{id: a b, cpu: 1, memory_gib: 1}]", "id"),
        ("node_specs: [{id: a, cpu: 1, memory_gib: 1}, {id: a, cpu: 2, memory_gib: 1}]", "more than one entry"),
        ("node_specs: [{id: cpu_2u8g, cpu: 1, memory_gib: 1}]", "too alike"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InvalidSettings, match=reason):
        load_node_specs(table(tmp_path, text))


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"nothing\.yaml"):
        load_node_specs(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("spec", "auto", "granted", "reason"),
    [
        ("nothing", False, (), "'nothing' does not exist; may be used: cpu-2u8g"),
        ("gpu-2u8g-p4", False, (), "must be granted by the operator.*; may be used: cpu-2u8g$"),
        ("auto-cpu", False, ("gpu-2u8g-p4",), "only for models of automatic.*: cpu-2u8g, gpu-2u8g-p4$"),
        ("cpu-2u8g", True, (), "not for models of automatic learning; may be used: auto-cpu, auto-gpu$"),
    ],
)
def test_what_may_not_be_used_is_refused(spec: str, auto: bool, granted: tuple[str, ...], reason: str) -> None:
    with pytest.raises(InvalidParameters, match=reason):
        load_node_specs().check(spec, automatic_learning=auto, granted=granted)


def test_what_may_be_used() -> None:
    specs = load_node_specs()
    assert specs.check("gpu-2u8g-p4", automatic_learning=False, granted={"gpu-2u8g-p4"}).gpu == 1
    assert specs.check("auto-gpu", automatic_learning=True, granted=()).audience == "auto"
