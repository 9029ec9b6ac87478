"""What a wheel carries beside the code: the instance's and the workspace's configuration of the repository's top."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def test_a_wheel_carries_the_configuration(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        for name in ("dagster.yaml", "workspace.yaml"):
            assert not (REPOSITORY / name).is_symlink()
            assert wheel.read(f"batch_pipeline/orchestration/{name}") == (REPOSITORY / name).read_bytes()
        assert "batch_pipeline/py.typed" in wheel.namelist()
