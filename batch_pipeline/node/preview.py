"""The first requests and their answers, without deploying: what `preview` shows."""

from __future__ import annotations

from batch_pipeline.node import csv_blocks
from batch_pipeline.node.csv_unit import CsvWork
from batch_pipeline.node.file_unit import FileWork
from batch_pipeline.node.job import NodeJob
from batch_pipeline.node.work import opened_work
from batch_pipeline.parameters import CsvOptions


def preview_csv(job: NodeJob, data: bytes, rows: int) -> list[dict[str, object]]:
    """`{"request", "answer"}` for the first rows of a CSV's beginning; a last line that is cut off counts as a row.

    `job.units` are not looked at. Raises InputFailed for the file, NodeFailed for the model.
    """
    with opened_work(job, samples=rows) as work:
        assert isinstance(work, CsvWork), "preview_csv is for a JSON API"
        for _ in work.lines([_beginning(data, rows, job.csv)]):
            pass
        return list(work.sample.pairs)


def _beginning(data: bytes, rows: int, csv: CsvOptions) -> bytes:
    """So many rows with their header: no others are to be inferred, as a model may be slow."""
    return csv_blocks.first_rows(data.removeprefix(csv_blocks.BOM), rows + csv.header, multiline=csv.multiline)


def preview_file(job: NodeJob, data: bytes) -> list[dict[str, object]]:
    """`{"answer"}` for one file. Raises InputFailed for the file, NodeFailed for the model."""
    with opened_work(job, samples=1) as work:
        assert isinstance(work, FileWork), "preview_file is for a file API"
        work.line(data)
        return list(work.sample.pairs)
