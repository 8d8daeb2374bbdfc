"""The states of a task."""

from __future__ import annotations

import itertools

import celery.states

from txmsg.rpc.celery import states
from txmsg.rpc.celery.states import is_ready, outranks, precedence


def test_the_sets_are_celerys() -> None:
    """celery I-01 to I-05, B-13, B-14."""
    for name in ("READY_STATES", "UNREADY_STATES", "EXCEPTION_STATES", "PROPAGATE_STATES", "ALL_STATES"):
        assert getattr(states, name) == getattr(celery.states, name)
    assert states.REJECTED not in states.ALL_STATES
    assert states.IGNORED not in states.ALL_STATES


def test_final_ones() -> None:
    """celery I-02, I-03, I-09: custom names, and those in small letters, are not final."""
    assert all(is_ready(state) for state in ("SUCCESS", "FAILURE", "REVOKED"))
    assert not any(is_ready(state) for state in ("PROGRESS", "success", "Failure", "", "RETRY", "STARTED"))


def test_precedence_is_celerys() -> None:
    """celery I-06."""
    names = [*states.ALL_STATES, states.REJECTED, "PROGRESS"]
    for left, right in itertools.product(names, names):
        # Celery's "greater" is ours to outrank.
        assert outranks(left, right) == (celery.states.state(left) > celery.states.state(right)), (left, right)
    assert [precedence(name) for name in ("SUCCESS", "FAILURE", "A", "B", "REVOKED")] == [0, 1, 2, 2, 3]
