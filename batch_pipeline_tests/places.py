"""A deployment on the local disk, with a real model in its registry: what the fast tests of services work with."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_pipeline import service
from batch_pipeline.deployment import Deployment
from batch_pipeline.ownership import Owner
from batch_pipeline.parameters import ServiceParameters, parse_parameters
from batch_pipeline.settings import Settings
from batch_pipeline.summary import Summary

EXPORTED = Path(__file__).parent / "exported"
NUMBER = {"type": "number"}
FLOWER = {"type": "object", "properties": {f"input_{index}": NUMBER for index in range(1, 5)}}
CONFIG: dict[str, Any] = {
    "model_algorithm": "logistic_regression",
    "model_type": "ONNX",
    "apis": [{"url": "/", "request": {"Content-type": "application/json", "data": FLOWER}}],
}
ROW = "5.1,3.5,1.4,0.2"


@dataclass
class Place:
    """A folder that holds a registry, inputs and outputs."""

    root: Path
    deployment: Deployment

    @classmethod
    def at(cls, root: Path, **env: str) -> Place:
        (root / "models").mkdir()
        (root / "in").mkdir()
        settings = {
            "BATCH_PIPELINE_ALLOW_LOCAL_FILES": "true",
            "BATCH_PIPELINE_MODELS": f"file://{root}/models/",
            "BATCH_PIPELINE_CACHE": str(root / "cache"),
            "BATCH_PIPELINE_MIN_PART_BYTES": "1000",
            **env,
        }
        place = cls(root, Deployment(Settings.from_environment(settings)))
        place.push("iris:1.0.0")
        return place

    def push(self, ref: str, config: dict[str, Any] = CONFIG, model: str = "logistic.onnx") -> None:
        folder = self.root / "package"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        shutil.copy(EXPORTED / model, folder / "model.onnx")
        self.deployment.registry.push(folder, ref)
        shutil.rmtree(folder)

    def put(self, name: str, text: str | bytes = ROW + "\n") -> str:
        """Writes a file below the input folder and returns its location."""
        path = self.root / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return f"file://{path}"

    def manifest(self, *sources: str | dict[str, Any], name: str = "list.manifest") -> str:
        lines = [json.dumps({"source": one} if isinstance(one, str) else one) for one in sources]
        path = self.root / name
        path.write_text("".join(line + "\n" for line in lines))
        return f"file://{path}"

    @property
    def output(self) -> Path:
        return self.root / "out"

    def parameters(self, **changes: Any) -> ServiceParameters:
        base = {
            "name": "flowers",
            "model": "iris",
            "input_path": f"file://{self.root}/in/",
            "output_path": f"file://{self.root}/out/",
        }
        return parse_parameters({**base, **changes}, settings=self.deployment.settings)

    def run(self, run_id: str = "run", **changes: Any) -> Summary:
        """The whole service, its nodes one after the other."""
        return run_service(self.parameters(**changes), self.deployment, run_id)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The JSON lines of a file below the output folder."""
        return [json.loads(line) for line in (self.output / name).read_text().splitlines()]

    def files(self) -> dict[str, bytes]:
        """Everything below the output folder but the service's own records."""
        found = (path for path in sorted(self.output.rglob("*")) if path.is_file())
        named = ((path.relative_to(self.output).as_posix(), path) for path in found)
        return {name: path.read_bytes() for name, path in named if not name.startswith("_batch/")}


def run_service(parameters: ServiceParameters, deployment: Deployment, run_id: str = "run") -> Summary:
    """The whole service in this process, its nodes one after the other."""
    owner = Owner(run_id, parameters.name or "")
    service.ingest(parameters, deployment, owner)
    for shard in service.plan(parameters, deployment, owner):
        service.infer(shard, deployment, owner)
    return service.publish(parameters, deployment, owner)
