"""The record that stands in a result in the place of a row's answer, read back. No storage, no tables here."""

from __future__ import annotations


def row_error(answer: object) -> str | None:
    """`code: message` where the answer is the error record of a row."""
    if not isinstance(answer, dict) or not set(answer) <= {"error", "input"}:
        return None
    error = answer.get("error")
    if isinstance(error, dict) and set(error) == {"code", "message"}:
        return f"{error['code']}: {error['message']}"
    return None
