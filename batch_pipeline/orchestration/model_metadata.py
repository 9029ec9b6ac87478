"""What people see of a model version: its status, its files' digest, and what its APIs and its ONNX graph take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from batch_pipeline.orchestration.graph import MODEL
from batch_pipeline.orchestration.tables import Metadata, table

if TYPE_CHECKING:
    from batch_pipeline.models.binding import Tensor
    from batch_pipeline.models.package import Api
    from batch_pipeline.models.registry import ModelVersion

VALID = "valid"
"""The check of a version."""


def of_model(found: ModelVersion) -> Metadata:
    """One `metrics/<name>` per number that config.json gives: these can be compared over versions."""
    config, onnx = found.config, found.onnx
    metadata: Metadata = {
        "model": found.ref,
        "status": found.status,
        "dagster/uri": found.location.uri,
        "dagster/size_bytes": found.size,
        "files": len(found.files),
        **({"reasons": _listed(found)} if found.reasons else {}),
        **({"model_sha256": found.sha256} if found.sha256 else {}),
        **({"model_digest": found.digest} if found.digest else {}),
    }
    if config is not None:
        metadata |= {"algorithm": config.model_algorithm or "", **_metrics(config.metrics or {})}
        metadata["apis"] = dg.MetadataValue.json([_api(api) for api in config.apis])
    if onnx is not None:
        metadata |= {"onnx_inputs": _tensors(onnx.inputs), "onnx_outputs": _tensors(onnx.outputs)}
    if found.labels is not None:
        metadata["labels"] = len(found.labels)
    return metadata


def validity(found: ModelVersion) -> dg.AssetCheckResult:
    """Whether a service may use it; where not, every reason."""
    return dg.AssetCheckResult(
        asset_key=MODEL,
        check_name=VALID,
        passed=found.status == "normal",
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(found.reasons) or None,
        metadata={"model": found.ref, "status": found.status, "reasons": len(found.reasons)},
    )


def _listed(found: ModelVersion) -> dg.TableMetadataValue:
    return table({"reason": reason} for reason in found.reasons)


def _metrics(metrics: Mapping[str, Any]) -> Metadata:
    """Numbers, also where they are written as texts."""
    found: Metadata = {}
    for name, value in metrics.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        # NaN and infinities have no place in JSON, nor in a plot.
        if abs(number) < float("inf"):
            found[f"metrics/{name}"] = number
    return found


def _api(api: Api) -> dict[str, Any]:
    return {
        "url": api.url,
        "protocol": api.protocol,
        "method": api.method,
        "kind": api.kind,
        "request": _plain(api.request_schema),
        "response": _plain(api.response_schema),
    }


def _plain(value: Any) -> Any:
    """The same with dicts and lists alone, as JSON metadata must be."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _tensors(tensors: tuple[Tensor, ...]) -> dg.TableMetadataValue:
    """A size that the graph leaves open is `N` in the first place, which is the batch, and `?` in others."""
    return table(
        {
            "name": one.name,
            "type": one.element,
            "shape": ", ".join(
                ("?" if place else "N") if size is None else str(size) for place, size in enumerate(one.shape)
            ),
        }
        for one in tensors
    )
