from __future__ import annotations

from pathlib import Path

import pytest

from batch_pipeline.deployment import Deployment
from batch_pipeline.errors import InvalidSettings
from batch_pipeline.locations import Location
from batch_pipeline.settings import SHARE_LINK_HOSTS, Settings


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_environment({"BATCH_PIPELINE_MODELS": "", "HOME": "/nowhere"})
    assert settings.models is None
    assert settings.share_link_hosts == SHARE_LINK_HOSTS
    assert (settings.max_services, settings.max_nodes, settings.lock_seconds) == (1000, 256, 30.0)
    assert not settings.allow_local_files


def test_every_setting_is_read() -> None:
    settings = Settings.from_environment(
        {
            "BATCH_PIPELINE_MODELS": "file:///models",
            "BATCH_PIPELINE_NODE_SPECS": "/etc/specs.yaml",
            "BATCH_PIPELINE_SERVICES": "/etc/services",
            "BATCH_PIPELINE_GRANTED_SPECS": "gpu-2u8g-p4, x",
            "BATCH_PIPELINE_SHARE_LINK_HOSTS": "a.example,*.b.example",
            "BATCH_PIPELINE_ALLOW_LOCAL_FILES": "TRUE",
            "BATCH_PIPELINE_MAX_SERVICES": "2",
            "BATCH_PIPELINE_MAX_NODES": "3",
            "BATCH_PIPELINE_CACHE": "/cache",
            "BATCH_PIPELINE_MIN_PART_BYTES": "4",
            "BATCH_PIPELINE_LOCK_SECONDS": "0.5",
            "BATCH_PIPELINE_LOCAL_NODES": "5",
            "BATCH_PIPELINE_BATCH_SECONDS": "1.5",
            "BATCH_PIPELINE_STEP_OUTPUTS": "s3://bucket/steps",
            "AWS_ENDPOINT_URL": "http://general",
            "AWS_ENDPOINT_URL_S3": "http://s3",
        }
    )
    assert settings == Settings(
        models=Location("", "models/", "file"),
        node_specs=Path("/etc/specs.yaml"),
        services=Path("/etc/services"),
        granted_specs=frozenset({"gpu-2u8g-p4", "x"}),
        share_link_hosts=("a.example", "*.b.example"),
        allow_local_files=True,
        max_services=2,
        max_nodes=3,
        cache=Path("/cache"),
        min_part_bytes=4,
        lock_seconds=0.5,
        local_nodes=5,
        batch_seconds=1.5,
        step_outputs=Location("bucket", "steps/"),
        endpoint="http://s3",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_NODES", "0"),
        ("MAX_NODES", "1.5"),
        ("MAX_SERVICES", "many"),
        ("ALLOW_LOCAL_FILES", "maybe"),
        ("LOCK_SECONDS", "-1"),
        ("LOCK_SECONDS", "inf"),
        ("BATCH_SECONDS", "0"),
        ("MODELS", "models"),
        ("MODELS", "file:///models/"),
        ("STEP_OUTPUTS", "file:///steps/"),
    ],
)
def test_a_bad_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=f"^BATCH_PIPELINE_{name}: "):
        Settings.from_environment({f"BATCH_PIPELINE_{name}": value})


def test_all_bad_settings_are_named_at_once() -> None:
    with pytest.raises(InvalidSettings, match=r"MAX_SERVICES.*; .*MAX_NODES"):
        Settings.from_environment({"BATCH_PIPELINE_MAX_NODES": "x", "BATCH_PIPELINE_MAX_SERVICES": "x"})


def test_a_registry_that_is_not_set_is_said_when_it_is_needed() -> None:
    deployment = Deployment(Settings())
    assert "cpu-2u8g" in deployment.node_specs
    with pytest.raises(InvalidSettings, match="BATCH_PIPELINE_MODELS is not set"):
        _ = deployment.registry
