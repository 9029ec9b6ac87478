"""The outermost edge: whatever goes wrong in a command becomes lines on standard error and an exit status."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from typing import Any

import click

from batch_pipeline.cli.output import say
from batch_pipeline.errors import BatchPipelineError, InvalidParameters, ServiceFailed

FAILED, REFUSED, INTERRUPTED = 1, 2, 130


class Edge(click.Group):
    """The top command group; `--debug` shows tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        debug = bool(ctx.params.get("debug"))
        _write_anything()
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except KeyboardInterrupt:
            say("interrupted")
            return INTERRUPTED
        except BrokenPipeError:
            # The reader of our output has gone, as `| head` does; nothing more can be written, at exit neither.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        except BatchPipelineError as error:
            if debug:
                traceback.print_exc()
            for line in _lines(error):
                say(f"error: {line}")
            # Nothing else than a service fails: a store that can't be reached keeps one from starting.
            return FAILED if isinstance(error, ServiceFailed) else REFUSED
        except Exception as error:  # noqa: BLE001  the outermost edge
            _unexpected(error, debug=debug)
            return FAILED


def _lines(error: BatchPipelineError) -> list[str]:
    if isinstance(error, InvalidParameters):
        return [str(problem) for problem in error.problems]
    return [error.message or type(error).__name__]


def _unexpected(error: Exception, *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
        return
    with tempfile.NamedTemporaryFile(
        "w", prefix="batch-pipeline-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        traceback.print_exc(file=file)
    what = str(error).splitlines()[0] if str(error).strip() else ""
    say(f"error: unexpected {type(error).__name__}{': ' if what else ''}{what} (traceback: {file.name})")


def _write_anything() -> None:
    """A character the terminal's encoding lacks is written escaped, never an error of its own."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
