"""The table of calls without an answer: each ends once, and leaves nothing behind."""

from __future__ import annotations

import tracemalloc
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmsg.errors import ConfigurationError, ConnectionLost, DecodeError, Overloaded, RemoteError, RPCTimeout
from txmsg.rpc.pending import PendingCall, PendingCalls, ReplyCounts, correlation_ids


class PendingCase(SynchronousTestCase):
    """A table on a clock that the test turns."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.table = PendingCalls(self.clock)

    def found(self, correlation_id: str | None) -> PendingCall:
        call = self.table.find(correlation_id)
        assert call is not None
        return call


class EndingTests(PendingCase):
    """R27: each call ends once."""

    def test_result(self) -> None:
        """The call with the id of the reply, and no other."""
        one, other = self.table.add(1.0), self.table.add(1.0)
        self.table.succeed(self.found(other.correlation_id), "result")
        self.assertEqual(self.successResultOf(other.deferred), "result")
        self.assertNoResult(one.deferred)
        self.assertEqual(len(self.table), 1)
        self.table.fail(self.found(one.correlation_id), RemoteError("ValueError"), is_answer=True)
        self.failureResultOf(one.deferred, RemoteError)
        self.assertEqual(len(self.table), 0)

    def test_once(self) -> None:
        """What ends a call that has ended does nothing, also where its id is in use again."""
        call = self.table.add(1.0, correlation_id="task")
        self.table.succeed(call, 1)
        again = self.table.add(1.0, correlation_id="task")
        self.table.succeed(call, 2)
        self.table.fail(call, RemoteError("late"))
        self.assertEqual(self.successResultOf(call.deferred), 1)
        self.assertNoResult(again.deferred)
        self.assertIs(self.table.find("task"), again)

    def test_timeout(self) -> None:
        """In time, in the order of the ends, also of calls with different limits."""
        ended: list[str] = []

        def has_ended(failure: Failure, name: str) -> None:
            failure.trap(RPCTimeout)
            ended.append(f"{name} {self.clock.seconds():g}")

        for name, wait, limit in [("a", 0.0, 3.0), ("b", 0.5, 1.0), ("c", 0.0, 3.0), ("d", 0.25, 1.0)]:
            self.clock.advance(wait)
            self.table.add(limit).deferred.addErrback(has_ended, name)
        for _ in range(16):
            self.clock.advance(0.25)
        self.assertEqual(ended, ["b 1.5", "d 1.75", "a 3", "c 3.5"])
        self.assertEqual(len(self.table), 0)

    def test_timeout_says_what_came(self) -> None:
        """A reply that could not be read is dropped, and is in the text of the timeout."""
        call = self.table.add(1.0)
        self.table.undecodable(call, DecodeError("a body that is not JSON"))
        self.assertNoResult(call.deferred)
        self.clock.advance(1.0)
        error = self.failureResultOf(call.deferred, RPCTimeout).value
        self.assertIn("not JSON", str(error))
        self.assertEqual(error.timeout, 1.0)
        self.assertEqual(self.table.counts, ReplyCounts(undecodable=1))

    def test_cancel(self) -> None:
        """The wait ends; what has not left is taken back."""
        call = self.table.add(1.0)
        taken_back: list[Any] = []
        call.sent = Deferred(taken_back.append)
        call.sent.addErrback(lambda failure: None)
        call.deferred.cancel()
        self.failureResultOf(call.deferred, CancelledError)
        self.assertEqual(len(taken_back), 1)
        self.assertEqual(len(self.table), 0)
        self.clock.advance(5)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_all_at_once(self) -> None:
        """A lost connection: all fail with its reason, and calls made because of that are new ones."""
        calls = [self.table.add(1.0) for _ in range(3)]
        again: list[PendingCall] = []
        calls[0].deferred.addErrback(lambda failure: again.append(self.table.add(1.0)))
        reason = ConnectionLost("gone")
        self.table.fail_all(reason)
        for call in calls[1:]:
            self.assertIs(self.failureResultOf(call.deferred, ConnectionLost).value, reason)
        self.assertNoResult(again[0].deferred)
        self.assertEqual(len(self.table), 1)
        self.table.fail_all(reason, again)
        self.failureResultOf(again[0].deferred, ConnectionLost)

    def test_close(self) -> None:
        """No call, no timer; and nothing begins any more."""
        call = self.table.add(1.0)
        reason = ConnectionLost("closed")
        self.table.close(reason)
        self.failureResultOf(call.deferred, ConnectionLost)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertRaises(ConnectionLost, self.table.add, 1.0)

    def test_progress(self) -> None:
        """As often as it comes; what the function raises is logged and harms nobody."""
        seen: list[Any] = []
        call = self.table.add(1.0, seen.append)
        self.table.progress(call, 1)
        self.table.progress(call, 2)
        self.table.progress(self.table.add(1.0), "nobody listens")
        self.assertEqual(seen, [1, 2])
        broken = self.table.add(1.0, lambda value: 1 / 0)
        self.table.progress(broken, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertNoResult(broken.deferred)


class DroppingTests(PendingCase):
    """R27, C6.3: what belongs to no call is dropped, and counted by why."""

    def test_late_duplicate_and_unknown(self) -> None:
        """R27: a reply after the timeout, a second reply, and one for an id that we never gave."""
        timed_out, answered, cancelled = self.table.add(1.0), self.table.add(5.0), self.table.add(5.0)
        self.clock.advance(1.0)
        self.failureResultOf(timed_out.deferred, RPCTimeout)
        self.table.succeed(answered, None)
        cancelled.deferred.cancel()
        self.failureResultOf(cancelled.deferred, CancelledError)
        for call in (timed_out, answered, cancelled):
            self.assertIsNone(self.table.find(call.correlation_id))
        for forged in ("", "0" * 32, None):
            self.assertIsNone(self.table.find(forged))
        self.assertEqual(self.table.counts, ReplyCounts(late=2, duplicate=1, unknown=3))

    def test_ids(self) -> None:
        """C6.3: 128 random bits each; none can be guessed from another."""
        ids = correlation_ids()
        made = [next(ids) for _ in range(1000)]
        self.assertEqual(len(set(made)), 1000)
        self.assertEqual({len(each) for each in made}, {32})
        for position in range(32):  # each digit is random, from call to call
            self.assertGreater(len({each[position] for each in made}), 10)

    def test_an_id_of_ones_own(self) -> None:
        """As Celery has it: the id of a task.  Not twice."""
        call = self.table.add(1.0, correlation_id="task")
        self.assertIs(self.table.find("task"), call)
        self.assertRaises(ConfigurationError, self.table.add, 1.0, correlation_id="task")
        self.table.succeed(call, 1)
        self.assertIsNone(self.table.find("task"))
        self.assertEqual(self.table.counts.duplicate, 1)


class BoundTests(PendingCase):
    """Thousands in flight, and no more than the limit; nothing stays of those that ended."""

    def test_limit(self) -> None:
        """Overloaded, which says that nothing was sent; a call that ends makes room."""
        table = PendingCalls(self.clock, 2)
        first = table.add(1.0)
        table.add(1.0)
        self.assertRaises(Overloaded, table.add, 1.0)
        table.succeed(first, None)
        table.add(1.0)

    def test_wrong_arguments(self) -> None:
        """ConfigurationError, and nothing has begun."""
        for limit in (0, -1, 1.5, True):
            self.assertRaises(ConfigurationError, PendingCalls, self.clock, limit)
        for timeout in (0, -1, float("nan"), float("inf"), True, "1", None):
            self.assertRaises(ConfigurationError, self.table.add, timeout)
        self.assertEqual(len(self.table), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_timers(self) -> None:
        """One for each time limit in use, however many calls; none when they have ended."""
        for _ in range(1000):
            self.table.add(1.0)
            self.table.succeed(self.table.add(2.0), None)
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)
        for call in self.table:
            call.deferred.addErrback(lambda failure: None)
        self.clock.advance(1.0)
        self.assertEqual(len(self.table), 0)
        self.clock.advance(2.0)
        self.clock.advance(2.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_time_limits_that_are_all_different(self) -> None:
        """What was left until some moment: ended calls leave no timers, however long they could have taken."""
        for n in range(1000):
            self.table.succeed(self.table.add(1000.0 + n), None)
        self.assertLess(len(self.clock.getDelayedCalls()), 20)
        last = self.table.add(5000.0)
        self.clock.advance(5000.0)
        self.failureResultOf(last.deferred, RPCTimeout)
        self.clock.advance(5000.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_time_limit(self) -> None:
        """Not even by an int that no float can be, and that has no text."""
        for wrong in (float("inf"), 2.0**31 + 1, 10**400, 10**5000):
            self.assertRaises(ConfigurationError, self.table.add, wrong)

    def test_nothing_grows(self) -> None:
        """peers 27, 57: the memory after many calls is that after a few thousand."""

        def calls(count: int) -> int:
            for _ in range(count):
                self.table.succeed(self.table.add(30.0), None)
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            calls(10_000)
            before = calls(10_000)
            after = calls(20_000)
        finally:
            tracemalloc.stop()
        self.assertLess(after - before, 1_000_000)
