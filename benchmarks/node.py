"""A compute node, or the two steps before it, as a process of its own and without Dagster.

`python -m benchmarks.node plan FILE SHARDS` lists and divides the inputs; `python -m benchmarks.node infer FILE SHARDS`
does the first node's share. Both print the seconds that the steps took.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from pathlib import Path

from batch_pipeline import service
from batch_pipeline.deployment import Deployment
from batch_pipeline.ownership import Owner
from batch_pipeline.parameters import parse_parameters


def main(step: str, file: str, shards: str) -> None:
    deployment = Deployment.from_environment()
    parameters = parse_parameters(json.loads(Path(file).read_text(encoding="utf-8")), settings=deployment.settings)
    owner = Owner("benchmark", parameters.name or "")
    began = time.perf_counter()
    if step == "plan":
        service.ingest(parameters, deployment, owner)
        Path(shards).write_bytes(pickle.dumps(service.plan(parameters, deployment, owner)))
    else:
        service.infer(pickle.loads(Path(shards).read_bytes())[0], deployment, owner)
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main(*sys.argv[1:])
