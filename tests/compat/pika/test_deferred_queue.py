"""ClosableDeferredQueue: rows L-01 to L-12 of pika's adapter."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, QueueOverflow, QueueUnderflow
from twisted.trial.unittest import SynchronousTestCase

from tests.compat.pika.cases import outcomes
from txmsg.compat.pika import ClosableDeferredQueue


class Falsy(Exception):
    def __bool__(self) -> bool:
        return False


class ClosableDeferredQueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.queue = ClosableDeferredQueue()
        self.reason = RuntimeError("over")

    def fails(self, deferred: Deferred[Any] | None) -> BaseException | None:
        assert deferred is not None
        failure = self.failureResultOf(deferred)
        error: BaseException | None = failure.value
        return error

    def test_limits(self) -> None:
        """L-01: both are raised."""
        queue = ClosableDeferredQueue(size=1, backlog=1)
        queue.put(1)
        self.assertRaises(QueueOverflow, queue.put, 2)
        self.assertEqual(self.successResultOf(queue.get()), 1)
        queue.get()
        self.assertRaises(QueueUnderflow, queue.get)

    def test_order(self) -> None:
        """L-02, L-03: first in, first out, for items and for who waits."""
        seen = outcomes([self.queue.get(), self.queue.get()])
        self.assertIsNone(self.queue.put("a"))
        for item in "bcd":
            self.queue.put(item)
        self.assertEqual(seen, [(0, "a"), (1, "b")])
        self.assertEqual([self.successResultOf(self.queue.get()) for _ in "cd"], ["c", "d"])

    def test_close(self) -> None:
        """L-04, L-05, L-07: who waits fails, the oldest first; get and put fail then."""
        self.assertIsNone(self.queue.closed)
        seen = outcomes([self.queue.get() for _ in range(3)])
        self.queue.close(self.reason)
        self.assertEqual(seen, [(0, self.reason), (1, self.reason), (2, self.reason)])
        self.assertIs(self.queue.closed, self.reason)
        self.assertEqual((self.queue.waiting, self.queue.pending), ([], []))
        self.assertIs(self.fails(self.queue.get()), self.reason)
        self.assertIs(self.fails(self.queue.put(1)), self.reason)

    def test_what_was_not_fetched(self) -> None:
        """L-06: dropped, unless it is to be drained."""
        self.queue.put(1)
        self.queue.close(self.reason)
        self.assertIs(self.fails(self.queue.get()), self.reason)
        queue = ClosableDeferredQueue()
        queue.put(1)
        queue.close(self.reason, drain=True)
        self.assertEqual(self.successResultOf(queue.get()), 1)
        self.assertIs(self.fails(queue.get()), self.reason)

    def test_looked_at_as_a_list(self) -> None:
        """What waits is a list in Twisted, and programs look at it as at one."""
        for item in "abcd":
            self.queue.put(item)
        pending: Any = self.queue.pending
        self.assertEqual((pending, len(pending), pending[0], pending[1:3]), (list("abcd"), 4, "a", ["b", "c"]))
        self.assertEqual([pending.pop(0), pending.pop(1), pending.pop()], ["a", "c", "d"])
        self.assertRaises(IndexError, pending.pop, 1)
        self.assertEqual(self.successResultOf(self.queue.get()), "b")

    def test_close_twice(self) -> None:
        """L-08: the first reason stays."""
        self.queue.close(self.reason)
        self.queue.close(ValueError())
        self.assertIs(self.queue.closed, self.reason)

    def test_falsy_reason(self) -> None:
        """L-09: a reason that is false is one."""
        reason = Falsy()
        self.queue.close(reason)
        self.assertIs(self.fails(self.queue.get()), reason)
        self.assertRaises(TypeError, ClosableDeferredQueue().close, None)

    def test_cancelled_get(self) -> None:
        """L-10: no item is lost to it; also when another one's errback cancels it at the close."""
        first, second = self.queue.get(), self.queue.get()
        first.addErrback(lambda failure: failure.trap(CancelledError))
        first.cancel()
        self.queue.put(1)
        self.assertEqual(self.successResultOf(second), 1)
        third, fourth = self.queue.get(), self.queue.get()
        third.addErrback(lambda failure: fourth.cancel())
        self.queue.close(self.reason)
        self.failureResultOf(fourth, CancelledError)
