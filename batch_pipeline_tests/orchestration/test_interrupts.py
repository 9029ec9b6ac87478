"""A signal while a node is at work."""

from __future__ import annotations

import os
import signal
import weakref

import dagster as dg
import pytest

from batch_pipeline.orchestration.interrupts import stopping


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
