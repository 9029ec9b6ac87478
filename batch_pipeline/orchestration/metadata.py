"""What people see of a run: reports of the service turned into Dagster metadata. Counts, rates, places, samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from batch_pipeline.orchestration.review_metadata import of_review
from batch_pipeline.orchestration.tables import Metadata, table
from batch_pipeline.parameters import ServiceParameters

if TYPE_CHECKING:
    from batch_pipeline.node.job import NodeReport
    from batch_pipeline.service import InputReport, MappingReport
    from batch_pipeline.summary import Summary

PARAMETERS = "parameters"


def of_input(parameters: ServiceParameters, report: InputReport) -> Metadata:
    metadata: Metadata = {
        PARAMETERS: dg.MetadataValue.json(parameters.to_display()),
        "dagster/uri": parameters.input_path,
        "input_path": dg.MetadataValue.path(parameters.input_path),
        "inputs": report.inputs,
        "bad_lines": report.bad_lines,
        "repeated": report.repeated,
        "attempt": report.attempt,
        "finished_before": report.finished,
    }
    return metadata if report.size is None else {**metadata, "input_bytes": report.size}


def reported_parameters(instance: dg.DagsterInstance, run_id: str) -> dict[str, Any] | None:
    """The parameters of a run as its first step said them, values of `environment` masked; None before that step."""
    for record in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        event = record.dagster_event
        value = event.materialization.metadata.get(PARAMETERS) if event is not None else None
        if isinstance(value, dg.JsonMetadataValue) and isinstance(value.data, dict):
            return dict(value.data)
    return None


def of_mapping(report: MappingReport) -> Metadata:
    metadata: Metadata = {
        "model": report.model,
        "model_sha256": report.model_sha256,
        "model_digest": report.model_digest,
        "request_path": report.request_path,
    }
    return metadata if report.rule is None else {**metadata, "mapping": dg.MetadataValue.json(report.rule)}


def of_node(report: NodeReport) -> Metadata:
    progress = report.progress
    return {
        "node": report.node,
        "inputs": progress.done,
        "failed": progress.failed,
        "rows": progress.rows,
        "failed_rows": progress.failed_rows,
        "bytes_read": progress.bytes_read,
        "seconds": round(report.seconds, 3),
        **_rates(report.seconds, inputs=progress.done, rows=progress.rows),
    }


def of_results(parameters: ServiceParameters, summary: Summary, mapping: MappingReport) -> Metadata:
    """The counts over the whole ledger, where the results are, a few of them, and the review."""
    return {
        "dagster/uri": f"{parameters.output_path}infer-result/",
        # A line is the answer to a row of a CSV, or to a file.
        "dagster/row_count": summary.rows or summary.succeeded,
        "dagster/size_bytes": summary.size,
        "results": dg.MetadataValue.path(f"{parameters.output_path}infer-result/"),
        "output_path": dg.MetadataValue.path(parameters.output_path),
        **({"sample": table(summary.sample)} if summary.sample else {}),
        **_first_errors(summary),
        **(of_review(summary.review) if summary.review is not None else {}),
        **_counts(summary),
        "seconds": round(summary.seconds, 3),
        **_rates(summary.seconds, inputs=summary.succeeded, rows=summary.rows),
        "nodes": summary.nodes,
        **of_mapping(mapping),
    }


def of_manifests(parameters: ServiceParameters, summary: Summary) -> Metadata:
    return {
        "dagster/uri": parameters.output_path,
        "output_path": dg.MetadataValue.path(parameters.output_path),
        "state": summary.state,
        "finished_before": summary.already_finished,
        **_counts(summary),
        "seconds": round(summary.seconds, 3),
        "nodes": summary.nodes,
        "result_manifests": dg.MetadataValue.json(list(summary.result_manifests)),
        "error_manifests": dg.MetadataValue.json(list(summary.error_manifests)),
        **_first_errors(summary),
    }


def _first_errors(summary: Summary) -> Metadata:
    return {"first_errors": table(summary.first_errors)} if summary.first_errors else {}


def _counts(summary: Summary) -> Metadata:
    return {
        "inputs": summary.inputs,
        "succeeded": summary.succeeded,
        "failed": summary.failed,
        "rows": summary.rows,
        "failed_rows": summary.failed_rows,
    }


def _rates(seconds: float, *, inputs: int, rows: int) -> Metadata:
    if seconds <= 0:
        return {}
    rates: Metadata = {"inputs_per_second": round(inputs / seconds, 3)}
    return {**rates, "rows_per_second": round(rows / seconds, 3)} if rows else rates
