"""The folders of a trigger: named after what is watched, wherever the trigger stands in its declaration."""

from __future__ import annotations

import hashlib

import pytest

from batch_pipeline.orchestration.watches import places_of
from batch_pipeline.triggers.settings import ManifestTrigger, NewFilesTrigger, NotificationTrigger

TEMPLATE = {"model": "iris", "output_path": "s3://answers/of-{name}/"}
QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/new-files"


@pytest.mark.parametrize(
    ("trigger", "watched"),
    [
        (ManifestTrigger("s3://bucket/orders/"), "s3://bucket/orders/"),
        (ManifestTrigger("obs://bucket/orders"), "s3://bucket/orders/"),
        (NewFilesTrigger("s3://bucket/new/", max_files=5), "s3://bucket/new/"),
        (NotificationTrigger(QUEUE), QUEUE),
        (NotificationTrigger(QUEUE, "s3://bucket/new/"), f"{QUEUE}s3://bucket/new/"),
    ],
)
def test_default_folders(trigger, watched):
    places = places_of(trigger, "reviews", TEMPLATE, allow_local=False)
    digest = hashlib.sha256(watched.encode()).hexdigest()[:8]
    assert places.state.uri == f"s3://answers/_triggers/reviews/{trigger.kind}-{digest}/"
    if places.manifests is not None:
        assert places.manifests == places.state.child("manifests/")


def test_folders_that_are_given():
    trigger = NewFilesTrigger("s3://bucket/new/", state_path="s3://mine/s", manifests_path="s3://mine/m/")
    places = places_of(trigger, "reviews", TEMPLATE, allow_local=False)
    assert (places.state.uri, places.manifests and places.manifests.uri) == ("s3://mine/s/", "s3://mine/m/")
