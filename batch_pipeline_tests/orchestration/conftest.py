"""A Dagster instance on disk, and a deployment in the environment, for the tests of the orchestration."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from batch_pipeline.orchestration.instance import open_instance
from batch_pipeline.orchestration.shipped import INSTANCE
from batch_pipeline_tests.places import Place


@pytest.fixture(scope="session")
def fresh_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An instance that nobody has used, made once: its databases take seconds to make."""
    home = tmp_path_factory.mktemp("home")
    (home / "dagster.yaml").write_bytes(INSTANCE.read_bytes())
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert not instance.get_runs()
    return home


@pytest.fixture
def home(tmp_path: Path, fresh_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `DAGSTER_HOME` of the test's own."""
    home = shutil.copytree(fresh_home, tmp_path / "home")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return Path(home)


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(quiet=True) as instance:
        yield instance


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A deployment on the local disk, named by the environment as that of a real process is."""
    place = Place.at(tmp_path)
    place.put("a.csv")
    place.put("b.csv")
    variables = {
        "ALLOW_LOCAL_FILES": "true",
        "MODELS": f"file://{tmp_path}/models/",
        "CACHE": str(tmp_path / "cache"),
        "MIN_PART_BYTES": "1000",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"BATCH_PIPELINE_{name}", value)
    return place
