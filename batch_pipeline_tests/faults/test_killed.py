"""Services that are killed at random moments, and run again, come to the bytes of one that was left alone.

A few seeded trials; `make test-faults` makes hundreds and writes their figures into docs/reliability.md.
"""

from __future__ import annotations

import os
import random

from batch_pipeline_tests.faults import killer, outputs
from batch_pipeline_tests.faults.figures import Figures
from batch_pipeline_tests.faults.works import WORKS, Verdict, Works

TRIALS = int(os.environ.get("FAULT_TRIALS", "8"))


def test_a_killed_service_that_is_run_again_comes_to_the_same_bytes(works: Works, figures: dict[str, Figures]) -> None:
    killer.preload()
    env, undisturbed = killer.environment(), killer.undisturbed(works, WORKS)
    seconds = {work: killer.run_whole(works.body(work, f"timed-{work}"), env) for work in WORKS}
    of = figures["the service's own process"] = Figures()
    for seed in range(TRIALS):
        work, name = list(WORKS)[seed % len(WORKS)], f"trial-{seed}"
        body = works.body(work, name)
        deaths, took = killer.run_killed(body, env, random.Random(seed), 1.2 * seconds[work])
        seconds[work] = took or seconds[work]
        assert outputs.named_but_absent(works.storage, works.output(name)) == [], seed
        killer.run_whole(body, env)
        verdict = works.judge(name, undisturbed[work])
        assert verdict == Verdict(verdict.inputs), seed
        of.count(work, deaths, verdict.inputs)
    assert of.deaths > TRIALS // 2
