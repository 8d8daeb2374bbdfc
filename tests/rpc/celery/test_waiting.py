"""within(): a limit."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmsg.errors import OperationTimeout
from txmsg.rpc.celery.waiting import within


class WithinTests(SynchronousTestCase):
    """R27: nothing waits without an end."""

    def test_limit(self) -> None:
        """What is done in time is as it is; what is not is cancelled; who cancels it has a CancelledError."""
        clock = Clock()
        self.assertEqual(self.successResultOf(within(1, succeed(3), clock, "x")), 3)
        waiting, late, cancelled = (within(1, Deferred[int](), clock, "it was not done") for _ in range(3))
        waiting.callback(4)
        self.assertEqual(self.successResultOf(waiting), 4)
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        clock.advance(1)
        self.assertEqual(str(self.failureResultOf(late, OperationTimeout).value), "it was not done within 1 s")
        self.assertEqual(clock.getDelayedCalls(), [])
