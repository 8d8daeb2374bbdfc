"""The failure policy: verdicts."""

from __future__ import annotations

import pytest

from txmsg.service.policy import (
    MINIMUM_REQUEUE_DELAY,
    FailurePolicy,
    Halt,
    OnFailure,
    Reject,
    Requeue,
    Settlement,
    Verdict,
)


def test_first_failure_is_requeued_after_the_delay() -> None:
    """R26: a message that fails for the first time gets one more chance, not at once."""
    verdict = FailurePolicy(requeue_delay=2.5).judge(ValueError("x"), redelivered=False)
    assert verdict == Verdict(Settlement.REQUEUE, 2.5)


def test_second_failure_is_rejected() -> None:
    """R26: a message that was delivered before is rejected, so it cannot go round for ever."""
    assert FailurePolicy().judge(ValueError("x"), redelivered=True) == Verdict(Settlement.REJECT)


def test_reject_policy_never_requeues() -> None:
    policy = FailurePolicy(OnFailure.REJECT)
    assert policy.judge(ValueError("x"), redelivered=False) == Verdict(Settlement.REJECT)


def test_reject_is_for_good_even_the_first_time() -> None:
    verdict = FailurePolicy().judge(Reject("unknown kind"), redelivered=False)
    assert verdict == Verdict(Settlement.REJECT, is_decision=True, reason="unknown kind")


@pytest.mark.parametrize(
    ("delay", "expected"),
    [(None, 1.0), (5.0, 5.0), (0.0, MINIMUM_REQUEUE_DELAY)],
)
def test_requeue_is_never_a_hot_loop(delay: float | None, expected: float) -> None:
    """R26: a handler that always says Requeue, on redeliveries too, is held back each time."""
    verdict = FailurePolicy().judge(Requeue(delay, "later"), redelivered=True)
    assert verdict == Verdict(Settlement.REQUEUE, expected, is_decision=True, reason="later")


@pytest.mark.parametrize("delay", [-1.0, float("nan"), float("inf")])
def test_requeue_refuses_what_is_no_delay(delay: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 86400 seconds"):
        Requeue(delay)


def test_halt_says_what_becomes_of_the_message() -> None:
    """peers 41: Halt carries the exit code of the process and the fate of the message."""
    judge = FailurePolicy().judge
    assert judge(Halt(), redelivered=False) == Verdict(Settlement.REQUEUE, is_decision=True, halt_with=13)
    assert judge(Halt(3, requeue=False, reason="done"), redelivered=True) == Verdict(
        Settlement.ACK, is_decision=True, halt_with=3, reason="done"
    )


@pytest.mark.parametrize("code", [-1, 256])
def test_halt_refuses_what_is_no_exit_code(code: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 255"):
        Halt(code)


def test_system_exit_in_a_handler_ends_the_service() -> None:
    """A handler that calls sys.exit() means the process: the message goes back, the code is 13."""
    verdict = FailurePolicy().judge(SystemExit(0), redelivered=True)
    assert verdict == Verdict(Settlement.REQUEUE, halt_with=13, reason="SystemExit")
