"""The command line as a process of its own, with an instance and a registry of its own, on the S3 server of a test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batch_pipeline.locations import Location
from batch_pipeline.storage import Storage
from batch_pipeline_tests.places import CONFIG, EXPORTED

REPOSITORY = Path(__file__).parents[2]


@dataclass
class Command:
    """`batch-pipeline` against one bucket and one Dagster instance."""

    root: Path
    bucket: str
    storage: Storage = field(default_factory=Storage)

    @property
    def environment(self) -> dict[str, str]:
        home = self.root / "dagster"
        home.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / "dagster.yaml", home)
        return {
            **os.environ,
            "DAGSTER_HOME": str(home),
            "BATCH_PIPELINE_MODELS": f"s3://{self.bucket}/models/",
            "BATCH_PIPELINE_CACHE": str(self.root / "cache"),
            "BATCH_PIPELINE_MIN_PART_BYTES": "1000",
        }

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(Path(sys.executable).parent / "batch-pipeline"), *arguments],
            text=True,
            **{"env": self.environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def run(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        """(what it printed, what it said), once its exit status is the expected one."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=240)
        assert process.returncode == status, f"{arguments}: exit status {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in err, err
        return out, err

    def parameters(self, **changes: Any) -> str:
        """A parameters file."""
        base = {
            "name": "flowers",
            "model": "iris",
            "input_path": f"s3://{self.bucket}/in/",
            "output_path": f"s3://{self.bucket}/out/",
        }
        path = self.root / "service.json"
        path.write_text(json.dumps({**base, **changes}))
        return str(path)

    def push_iris(self) -> None:
        package = self.root / "package"
        package.mkdir(exist_ok=True)
        (package / "config.json").write_text(json.dumps(CONFIG))
        shutil.copy(EXPORTED / "logistic.onnx", package / "model.onnx")
        self.run("models", "push", str(package), "iris:1.0.0")

    def put(self, key: str, data: str) -> str:
        self.storage.write(Location(self.bucket, key), data.encode())
        return f"s3://{self.bucket}/{key}"

    def read(self, key: str) -> str:
        return self.storage.read(Location(self.bucket, key)).decode()

    def lines(self, key: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.read(key).splitlines()]

    def written(self, prefix: str) -> dict[str, object]:
        """When each object whose key starts so was last written."""
        folder = Location(self.bucket, prefix[: prefix.rfind("/") + 1])
        found = self.storage.list(folder)
        return {info.location.key: info.modified for info in found if info.location.key.startswith(prefix)}
