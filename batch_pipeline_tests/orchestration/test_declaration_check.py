"""What is found to be wrong with a declaration before anything runs: each problem, where it stands."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from batch_pipeline.errors import InvalidParameters
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.declaration_check import check_declaration
from batch_pipeline.settings import Settings
from batch_pipeline.triggers.settings import (
    ManifestTrigger,
    ModelTrigger,
    NewFilesTrigger,
    NotificationTrigger,
    ScheduleTrigger,
)

SETTINGS = Settings.from_environment({"BATCH_PIPELINE_MODELS": "s3://models/"})
QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/new-files"
TEMPLATE = {"model": "iris", "output_path": "s3://answers/{name}/"}
WITH_INPUT = {**TEMPLATE, "input_path": "s3://bucket/in/"}
FIXED = {**WITH_INPUT, "output_path": "s3://answers/reviews/"}
MANIFESTS = ManifestTrigger("s3://bucket/orders/")


def problems(template, *triggers) -> list[tuple[str, str]]:
    try:
        check_declaration(Declaration("reviews", template, triggers=triggers), SETTINGS)
    except InvalidParameters as error:
        return [(problem.where, problem.what) for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("template", "triggers"),
    [
        (None, ()),
        (WITH_INPUT, ()),
        (FIXED, ()),
        (TEMPLATE, (MANIFESTS,)),
        (TEMPLATE, (MANIFESTS, ManifestTrigger("s3://bucket/more/"), NewFilesTrigger("s3://bucket/new/"))),
        (TEMPLATE, (NotificationTrigger(QUEUE, "s3://bucket/new/"),)),
        (TEMPLATE, (MANIFESTS, NewFilesTrigger("s3://bucket/orders/"))),
        (TEMPLATE, (MANIFESTS, ManifestTrigger("s3://other/mine/"))),
        (TEMPLATE, (MANIFESTS, NewFilesTrigger("s3://other/orders/"))),
        (TEMPLATE, (NotificationTrigger(QUEUE, "s3://bucket/a/"), NotificationTrigger(QUEUE + "-2", "s3://bucket/b/"))),
        ({**TEMPLATE, "output_path": "s3://answers/a/{name}/"}, (NotificationTrigger(QUEUE),)),
        ({**TEMPLATE, "output_path": "s3://answers/a/{name}/"}, (NotificationTrigger(QUEUE), MANIFESTS)),
        ({**WITH_INPUT, "output_path": "s3://answers/{time}/"}, (ScheduleTrigger("0 6 * * *", "Europe/Berlin"),)),
        (FIXED, (ScheduleTrigger("@daily"),)),
        ({**WITH_INPUT, "if_changed": "overwrite"}, (ModelTrigger(),)),
        ({**FIXED, "if_changed": "overwrite"}, (ScheduleTrigger("0 6 * * *"), ModelTrigger())),
    ],
)
def test_a_declaration_that_is_right(template, triggers):
    assert problems(template, *triggers) == []


@pytest.mark.parametrize(
    ("template", "triggers", "where", "what"),
    [
        (None, (MANIFESTS,), "triggers", "need a template"),
        ({**TEMPLATE, "modle": "iris"}, (MANIFESTS,), "modle", ""),
        ({**TEMPLATE, "name": "mine"}, (MANIFESTS,), "name", "can't be given in a template"),
        ({**TEMPLATE, "output_path": "s3://answers/{nmae}/"}, (MANIFESTS,), "output_path", "{nmae}"),
        ({**TEMPLATE, "output_path": "s3://answers/all/"}, (MANIFESTS,), "output_path", "must hold {name}"),
        ({**TEMPLATE, "output_path": "s3://{name}/"}, (MANIFESTS,), "output_path", "before its first placeholder"),
        ({**WITH_INPUT, "output_path": "s3://answers/{stem}/"}, (), "output_path", "{stem}"),
        (TEMPLATE, (ManifestTrigger("bucket/orders/"),), "triggers.0", "bucket/orders/"),
        (TEMPLATE, (ManifestTrigger("file:///orders/"),), "triggers.0", "file:///orders/"),
        (TEMPLATE, (ManifestTrigger("s3://answers/"),), "output_path", "s3://answers/"),
        (TEMPLATE, (MANIFESTS, NotificationTrigger("queue", "s3://bucket/new/")), "triggers.1.queue_url", "'queue'"),
        (TEMPLATE, (NotificationTrigger(f"{QUEUE}?key=x", "s3://bucket/new/"),), "triggers.0.queue_url", "or query"),
        (TEMPLATE, (NotificationTrigger(QUEUE),), "triggers.0.path", "must name a folder"),
        (
            TEMPLATE,
            (
                replace(MANIFESTS, state_path="s3://mine/a/"),
                ManifestTrigger("s3://bucket/b/", state_path="s3://mine/a/"),
            ),
            "triggers.1",
            "s3://mine/a/, and triggers.0 in s3://mine/a/: each needs its own",
        ),
        (
            TEMPLATE,
            (MANIFESTS, ScheduleTrigger("@daily"), ManifestTrigger("s3://bucket/orders/")),
            "triggers.2",
            "watches s3://bucket/orders/, and triggers.0 watches s3://bucket/orders/: each input would be taken twice",
        ),
        (
            TEMPLATE,
            (MANIFESTS, ManifestTrigger("s3://bucket/")),
            "triggers.1",
            "watches s3://bucket/, and triggers.0 watches s3://bucket/orders/",
        ),
        (
            TEMPLATE,
            (NewFilesTrigger("s3://bucket/new/"), NewFilesTrigger("obs://bucket/new/deep/", pattern="*.csv")),
            "triggers.1",
            "watches s3://bucket/new/deep/, and triggers.0 watches s3://bucket/new/",
        ),
        (
            TEMPLATE,
            (MANIFESTS, NotificationTrigger(QUEUE, "s3://bucket/")),
            "triggers.1",
            "watches s3://bucket/, and triggers.0 watches s3://bucket/orders/",
        ),
        (
            TEMPLATE,
            (MANIFESTS, ManifestTrigger("s3://other/orders/new/")),
            "triggers.1",
            "manifests of one key and content would make services of one name; declare a service for each bucket",
        ),
        (
            TEMPLATE,
            (NotificationTrigger(QUEUE, "s3://bucket/a/"), NotificationTrigger(QUEUE, "s3://bucket/b/")),
            "triggers.1",
            "reads the queue of triggers.0",
        ),
        (
            TEMPLATE,
            (MANIFESTS, NewFilesTrigger("s3://bucket/new/", manifests_path="s3://bucket/orders/gathered/")),
            "triggers.1",
            "in s3://bucket/orders/gathered/, and triggers.0 watches s3://bucket/orders/",
        ),
        (
            {**TEMPLATE, "output_path": "s3://answers/a/{name}/"},
            (NotificationTrigger(QUEUE), NewFilesTrigger("s3://bucket/new/", manifests_path="s3://mine/gathered/")),
            "triggers.1",
            "in s3://mine/gathered/, and triggers.0 watches all that its queue tells of",
        ),
        (
            TEMPLATE,
            (replace(MANIFESTS, state_path="s3://bucket/new/state/"), NewFilesTrigger("s3://bucket/new/")),
            "triggers.1",
            "watches s3://bucket/new/, and triggers.0 keeps its state or manifests in s3://bucket/new/state/",
        ),
        (
            TEMPLATE,
            (NotificationTrigger(QUEUE, state_path="s3://mine/a/", manifests_path="s3://mine/a/"),),
            "triggers.0",
            "must be two, not both s3://mine/a/",
        ),
        (
            TEMPLATE,
            (replace(MANIFESTS, interval_seconds=0),),
            "triggers.0.interval_seconds",
            "is 0; a number of at least 1",
        ),
        (
            TEMPLATE,
            (NewFilesTrigger("s3://bucket/n/", max_files=0),),
            "triggers.0.max_files",
            "is 0; a number of at least 1",
        ),
        (
            TEMPLATE,
            (NewFilesTrigger("s3://bucket/n/", max_bytes=0),),
            "triggers.0.max_bytes",
            "is 0; a number of at least 1",
        ),
        (
            TEMPLATE,
            (MANIFESTS, NotificationTrigger(QUEUE, "s3://bucket/n/", settle_seconds=-1)),
            "triggers.1.settle_seconds",
            "is -1; a number of at least 0",
        ),
        (
            TEMPLATE,
            (NewFilesTrigger("s3://bucket/n/", settle_seconds=math.nan),),
            "triggers.0.settle_seconds",
            "is nan",
        ),
        (
            TEMPLATE,
            (NewFilesTrigger("s3://bucket/n/", settle_seconds=1e12),),
            "triggers.0.settle_seconds",
            "1,000,000,000 are the most",
        ),
        ({**WITH_INPUT, "if_changed": "overwrite"}, (ModelTrigger(-1),), "triggers.0.interval_seconds", "is -1"),
        (FIXED, (ScheduleTrigger("daily"),), "triggers.0.cron", "'daily' is no cron schedule"),
        (FIXED, (ScheduleTrigger("0 6 * * *", "Mars"),), "triggers.0.timezone", "'Mars' is no time zone"),
        (WITH_INPUT, (ModelTrigger(),), "if_changed", "must be overwrite"),
        (
            {**WITH_INPUT, "model": "iris:1.0.0", "if_changed": "overwrite"},
            (ModelTrigger(),),
            "model",
            "which no new version changes",
        ),
        (
            {**WITH_INPUT, "if_changed": "overwrite"},
            (ModelTrigger(), ModelTrigger()),
            "triggers.1",
            "one trigger of type model is enough",
        ),
    ],
)
def test_a_declaration_that_is_wrong(template, triggers, where, what):
    found = problems(template, *triggers)
    assert any(place == where and what in said for place, said in found), found
    assert all("\n" not in said for _, said in found)


def test_everything_wrong_is_told_at_once():
    template = {**TEMPLATE, "node_count": 0}
    wrong = (NotificationTrigger("queue", "s3://bucket/new/"), ScheduleTrigger("daily"))
    assert {where for where, _ in problems(template, *wrong)} >= {
        "node_count",
        "triggers.0.queue_url",
        "triggers.1.cron",
    }
