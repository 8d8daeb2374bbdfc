"""TimeoutDeferredQueue: limits, closing, cancelling."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmsg.compat.txamqp.queue import Closed, Empty, TimeoutDeferredQueue


class QueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.queue = TimeoutDeferredQueue(self.clock)

    def test_in_order(self) -> None:
        first, second = self.queue.get(), self.queue.get(timeout=1)
        for item in "abc":
            self.queue.put(item)
        self.assertEqual([self.successResultOf(d) for d in (first, second, self.queue.get(1))], ["a", "b", "c"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_late(self) -> None:
        d = self.queue.get(timeout=2)
        self.clock.advance(1.9)
        self.assertNoResult(d)
        self.clock.advance(0.1)
        self.failureResultOf(d, Empty)
        self.queue.put("a")
        self.assertEqual(self.successResultOf(self.queue.get()), "a")

    def test_cancelled(self) -> None:
        """A wait that is given up takes no item along, and leaves no timer (txamqp leaves it)."""
        d = self.queue.get(timeout=2)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.queue.put("a")
        self.assertEqual(self.successResultOf(self.queue.get()), "a")

    def test_closed(self) -> None:
        """Everybody is told, oldest first, once and for all; what it holds can be had; it takes no more."""
        order: list[int] = []
        for number in (1, 2):
            d = self.queue.get(timeout=5)
            d.addErrback(lambda failure, n: order.append(n) if failure.check(Closed) else failure, number)
        self.queue.close("why")
        self.queue.close("another reason")
        self.assertEqual(order, [1, 2])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.queue.put("late")
        for _ in range(3):
            self.assertEqual(self.failureResultOf(self.queue.get(), Closed).value.args, ("why",))

    def test_closed_with_items(self) -> None:
        self.queue.put("a")
        self.queue.put(TimeoutDeferredQueue.END)
        self.assertEqual(self.successResultOf(self.queue.get()), "a")
        self.assertEqual(self.failureResultOf(self.queue.get(), Closed).value.args, ())
        other = TimeoutDeferredQueue(self.clock)
        other.put("a")
        other.close(discard=True)
        self.failureResultOf(other.get(), Closed)

    def test_limit(self) -> None:
        """A queue that nobody reads does not grow for ever."""
        queue = TimeoutDeferredQueue(self.clock, limit=2)
        for item in "abc":
            queue.put(item)
        self.assertEqual([self.successResultOf(queue.get()) for _ in range(2)], ["b", "c"])
