"""A process of its own in which an untrusted ONNX file is loaded first. Run as a script.

Whatever the file does to ONNX Runtime, it does it here: `onnx_model` reads the answer, or that there is none.
"""

from __future__ import annotations

import json
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_LEAST_MEMORY = 16 * 2**30


def main(path: Path) -> None:
    """Writes one line of JSON: what the graph takes and gives, or ONNX Runtime's error."""
    _bound(sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file()))
    try:
        found = _tried(str(path))
    except Exception as error:  # noqa: BLE001  the outermost edge
        found = {"error": str(error) or type(error).__name__}
    sys.stdout.write(f"\n{json.dumps(found)}\n")


def _tried(path: str) -> dict[str, Any]:
    """What the graph takes and gives as it stands in the file. It is loaded as a node loads it, too.

    Optimized, it computes all that no input has a say in, which may take any time and memory.
    """
    from batch_pipeline.onnx_runtime import onnxruntime, session_options

    options, providers = session_options(1), ["CPUExecutionProvider"]
    optimized = options.graph_optimization_level
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    found = {"inputs": _described(session.get_inputs()), "outputs": _described(session.get_outputs())}
    del session
    options.graph_optimization_level = optimized
    onnxruntime.InferenceSession(path, options, providers=providers)
    return found


def _bound(size: int) -> None:
    """No more memory than a package of this size needs, no core dump, and the first to go where memory ends."""
    memory = max(_LEAST_MEMORY, 8 * size)
    for kind, limit in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _described(tensors: Any) -> list[list[Any]]:
    return [[one.name, one.type, list(one.shape)] for one in tensors]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
