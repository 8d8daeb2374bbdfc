"""Tests of one attempt that several wait for."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmsg.messaging.connection.sharing import SharedAttempt


class SharedAttemptTests(SynchronousTestCase):
    """SharedAttempt."""

    def setUp(self) -> None:
        """Note attempts and what is cancelled."""
        self.attempts: list[Deferred[str]] = []
        self.cancelled: list[object] = []
        self.shared = SharedAttempt(self.start)

    def start(self) -> Deferred[str]:
        """Begin one."""
        self.attempts.append(Deferred(self.cancelled.append))
        return self.attempts[-1]

    def test_outcome_for_all(self) -> None:
        """One attempt, one outcome for each; the next one begins another."""
        waiting = [self.shared.join() for _ in range(3)]
        self.assertTrue(self.shared.is_running)
        self.attempts[0].callback("done")
        self.assertEqual([self.successResultOf(each) for each in waiting], ["done"] * 3)
        self.assertFalse(self.shared.is_running)
        failing = [self.shared.join() for _ in range(2)]
        self.attempts[1].errback(Failure(KeyError()))
        for each in failing:
            self.failureResultOf(each, KeyError)
        self.assertEqual(len(self.attempts), 2)

    def test_at_once(self) -> None:
        """An attempt that is over at once, given to join."""
        shared: SharedAttempt[str] = SharedAttempt()
        self.assertEqual(self.successResultOf(shared.join(lambda: succeed("now"))), "now")
        self.assertRaises(TypeError, shared.join)

    def test_cancelling(self) -> None:
        """One that gives up takes nothing from the others; the last one ends the attempt."""
        first, second = self.shared.join(), self.shared.join()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.cancelled, [])
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.cancelled, self.attempts)
        third = self.shared.join()
        self.attempts[1].callback("done")
        self.assertEqual(self.successResultOf(third), "done")

    def test_abandon(self) -> None:
        """All fail with the reason, and what the attempt still says is nobody's."""
        waiting = self.shared.join()
        self.shared.abandon(KeyError("why"))
        self.failureResultOf(waiting, KeyError)
        self.assertEqual(self.cancelled, self.attempts)
        again = self.shared.join()
        self.assertNoResult(again)
        self.attempts[1].callback("done")
        self.successResultOf(again)
        self.shared.abandon(KeyError("nobody waits"))

    def test_slow_end_of_an_abandoned_attempt(self) -> None:
        """One that takes its time to end says nothing to the next."""
        slow: Deferred[str] = Deferred()
        shared = self.shared
        first = shared.join(lambda: self.start().addErrback(lambda failure: slow))
        shared.abandon(KeyError())
        self.failureResultOf(first, KeyError)
        second = shared.join()
        slow.callback("late")
        self.assertNoResult(second)
        self.attempts[-1].callback("done")
        self.assertEqual(self.successResultOf(second), "done")
