"""What `dg scaffold defs batch_pipeline.BatchService NAME` writes: a declaration that loads, and reads as its docs."""

from __future__ import annotations

import json
import re

import dagster as dg
from dagster.components.component_scaffolding import scaffold_component
from pydantic import BaseModel, Field

from batch_pipeline.components.scaffold_text import DECLARATION


class BatchServiceScaffoldParams(BaseModel):
    """The options of the command."""

    model: str = Field(default="my-model", description="The model: name:version, or name for the newest.")
    input_path: str = Field(default="s3://my-bucket/incoming/", description="The input folder, or a manifest.")
    output_path: str = Field(default="", description="The output folder; by default s3://my-bucket/results/NAME/")


class BatchServiceScaffolder(dg.Scaffolder[BatchServiceScaffoldParams]):
    """Writes defs.yaml."""

    @classmethod
    def get_scaffold_params(cls) -> type[BatchServiceScaffoldParams]:
        """The options of the command."""
        return BatchServiceScaffoldParams

    def scaffold(self, request: dg.ScaffoldRequest[BatchServiceScaffoldParams]) -> None:
        """Write the declaration; a project that wants Python gets what any component does."""
        if request.scaffold_format == "python":
            scaffold_component(request)
            return
        path = request.target_path if request.append else request.target_path / "defs.yaml"
        text = _declaration(request, path.parent.name)
        with path.open("a" if request.append else "w", encoding="utf-8") as file:
            file.write(f"---\n{text}" if request.append else text)


def _declaration(request: dg.ScaffoldRequest[BatchServiceScaffoldParams], folder: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_]", "_", folder)
    return DECLARATION.format(
        type=request.type_name,
        name=name,
        model=json.dumps(request.params.model, ensure_ascii=False),
        input_path=json.dumps(request.params.input_path, ensure_ascii=False),
        output_path=json.dumps(request.params.output_path or f"s3://my-bucket/results/{name}/", ensure_ascii=False),
    )
