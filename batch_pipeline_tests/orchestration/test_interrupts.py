"""A signal while a node is at work."""

from __future__ import annotations

import os
import signal
import time
import weakref

import dagster as dg
import pytest

from batch_pipeline.node.job import Progress
from batch_pipeline.orchestration import here
from batch_pipeline.orchestration.interrupts import stopping
from batch_pipeline.orchestration.launching import launch
from batch_pipeline.orchestration.runs import latest_run


class Thing:
    """What something may hold a weak reference to."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_callback_of_the_collector_is_not_lost(number):
    """An exception raised there is dropped by Python."""
    before = signal.getsignal(number)
    thing = Thing()
    reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), number))
    with pytest.raises(dg.DagsterExecutionInterruptedError), stopping() as is_asked:  # noqa: PT012
        assert not is_asked()
        del thing
        assert (reference(), is_asked()) == (None, True)
    assert signal.getsignal(number) is before


def test_a_second_signal_raises_at_once():
    done = False
    with pytest.raises(dg.DagsterExecutionInterruptedError), stopping():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        done = True
    assert not done


def test_nothing_happens_without_a_signal():
    with stopping() as is_asked:
        pass
    assert not is_asked()


def test_a_signal_that_comes_once_the_service_has_finished_changes_nothing(instance, place, monkeypatch):
    """While its watch, which now looks all the time, is waited for."""
    monkeypatch.setattr(here, "WATCH_SECONDS", 0.01)
    sent = []

    def interrupt_at_the_end(_: Progress) -> None:
        if sent:
            return
        sent.append(signal.SIGINT)
        while not latest_run(instance, "batch_service", "flowers").is_finished:
            time.sleep(0.01)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGINT)

    launched = launch(place.parameters(), wait=True, instance=instance, on_progress=interrupt_at_the_end)
    assert (launched.state, launched.message, sent) == ("finished", "", [signal.SIGINT])
