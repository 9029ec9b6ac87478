"""A few requests and their answers, for people to look at."""

from __future__ import annotations

import json
import threading

from batch_pipeline.models.mapping import ColumnMapping
from batch_pipeline.node.csv_rows import request_values


class Sample:
    """Keeps the first few that come. Thread-safe."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._pairs: list[dict[str, object]] = []

    @property
    def wanted(self) -> bool:
        return len(self._pairs) < self.most

    def add(self, pair: dict[str, object]) -> None:
        with self._lock:
            if self.wanted:
                self._pairs.append(pair)

    def add_rows(self, rows: list[list[str]], mapping: ColumnMapping, text: bytes) -> None:
        """`text`: the result's lines, which begin with those of `rows`."""
        for fields, line in zip(rows, text.split(b"\n", len(rows))[: len(rows)], strict=True):
            self.add({"request": mapping.request(request_values(fields, mapping)), "answer": json.loads(line)})

    @property
    def pairs(self) -> tuple[dict[str, object], ...]:
        return tuple(self._pairs)
