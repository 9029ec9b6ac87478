"""Engines that take their process with them: a real death, at a certain value, in every process that infers.

`python_path(folder)` is a PYTHONPATH with which each Python process that is started has such engines (by
`sitecustomize`), whoever starts it: the command line, Dagster's fork server, a node.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KILLED = 666.0
"""As the kernel does where memory ends."""
SEGFAULT = 667.0
DEAF = 668.0
"""No other thread of the process gets its turn any more."""
DEAF_NOW = "TEST_DEAF"
"""A variable: the file that is there then."""
AT_LOADING = "TEST_DIE_AT_LOADING"
"""A variable: where it is set, a process dies at loading a model."""

REPOSITORY = Path(__file__).parents[2]


def python_path(folder: Path) -> str:
    (folder / "sitecustomize.py").write_text("from batch_pipeline_tests.faults import deadly\n\ndeadly.install()\n")
    return os.pathsep.join([str(folder), str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])


def install() -> None:
    """Makes the engines of this process deadly."""
    from batch_pipeline.node.engine import OnnxEngine

    load, run = OnnxEngine.__init__, OnnxEngine.run

    def deadly_load(self: OnnxEngine, *arguments: Any, **options: Any) -> None:
        if AT_LOADING in os.environ:
            os.kill(os.getpid(), signal.SIGSEGV)
        load(self, *arguments, **options)

    def deadly_run(self: OnnxEngine, inputs: Mapping[str, Any], part: float = 1.0) -> dict[str, Any]:
        for value, number in ((KILLED, signal.SIGKILL), (SEGFAULT, signal.SIGSEGV)):
            if any((values == value).any() for values in inputs.values()):
                os.kill(os.getpid(), number)
        if any((values == DEAF).any() for values in inputs.values()):
            Path(os.environ[DEAF_NOW]).touch()
            ctypes.PyDLL(None).sleep(60)
        return run(self, inputs, part)

    OnnxEngine.__init__, OnnxEngine.run = deadly_load, deadly_run  # type: ignore[method-assign]
