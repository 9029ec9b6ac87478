"""ONNX Runtime as this package imports it, in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

MODEL = Path(__file__).parent / "exported" / "logistic.onnx"
IMPORT = re.compile(r"^ *(?:import|from) onnxruntime\b", re.MULTILINE)
RUN = """
from pathlib import Path
from batch_pipeline.models.onnx_model import inspect
from batch_pipeline.node.engine import OnnxEngine
inspect(Path({model!r}))
OnnxEngine(Path({model!r}), threads=1, providers=["CPUExecutionProvider"], outputs=["label"])
"""


def test_no_telemetry_is_started(tmp_path):
    folders = {"HOME": tmp_path, "TMPDIR": tmp_path, "XDG_CACHE_HOME": tmp_path}
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    env = kept | {name: str(folder) for name, folder in folders.items()}
    subprocess.run([sys.executable, "-c", RUN.format(model=str(MODEL))], env=env, cwd=tmp_path, check=True)
    assert not list(tmp_path.rglob("*"))


def test_only_one_module_imports_it():
    package = Path(__file__).parents[1] / "batch_pipeline"
    importing = [file.name for file in package.rglob("*.py") if IMPORT.search(file.read_text())]
    assert importing == ["onnx_runtime.py"]
