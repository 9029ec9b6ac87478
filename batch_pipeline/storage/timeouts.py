"""How long an answer of the object store is waited for. Plain numbers; nothing is imported."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timeouts:
    read_seconds: float
    """Without a byte of an answer."""
    attempts: int


USUAL = Timeouts(read_seconds=60, attempts=5)
"""For who would rather wait than fail."""
IN_TICKS = Timeouts(read_seconds=15, attempts=2)
"""Dagster gives up a tick after 60 seconds, without a word of what it waited for."""
