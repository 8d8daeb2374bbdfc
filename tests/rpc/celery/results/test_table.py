"""ResultTable: which result belongs to whom, what is kept, and what is dropped."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.rpc.celery.results.case import message
from txmsg.errors import ConfigurationError, ConnectionLost, DecodeError, Overloaded, RPCTimeout
from txmsg.rpc.celery.result_message import TaskResult
from txmsg.rpc.celery.results import ResultTable


class TableCase(SynchronousTestCase):
    """Small limits."""

    def setUp(self) -> None:
        """An empty one."""
        self.clock = Clock()
        self.table = ResultTable(self.clock, max_waiting=3, max_kept=4, max_out_of_band=2, expires=100.0)


class WaitingTests(TableCase):
    """celery 12.2, 12.7, 12.8; R27."""

    def test_the_first_final_state_counts(self) -> None:
        """celery I-11, O-11 to O-13, M-03: progress ends nothing, the first end does, whatever comes after it."""
        record = self.table.record("a")
        seen: list[str] = []
        record.listeners.append(lambda each: seen.append(each.state))
        first, second = self.table.wait(record, 5), self.table.wait(record, 6)
        for state in ("STARTED", "RETRY", "PROGRESS", "success"):
            self.table.received(message("a", state), 1)
            self.assertNoResult(first)
        self.table.received(message("a", value=1), 1)
        for state in ("SUCCESS", "FAILURE", "STARTED"):
            self.table.received(message("a", state, value=2), 1)
        self.assertEqual(self.successResultOf(first).value, 1)
        self.assertEqual(self.successResultOf(second).value, 1)
        self.assertEqual(self.successResultOf(self.table.wait(record, 0)).value, 1)
        self.assertEqual(seen, ["STARTED", "RETRY", "PROGRESS", "success", "SUCCESS"])
        self.assertEqual((self.table.counts.duplicate, self.table.waiting, record.state), (3, 0, "SUCCESS"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_whose_it_is(self) -> None:
        """celery O-05, O-06: the id in the body, and only where that is not known the correlation id."""
        a, b = self.table.record("a"), self.table.record("b")
        self.table.received(message("a", value=1, correlation_id="b"), 1)
        self.assertEqual((a.state, b.state), ("SUCCESS", "PENDING"))
        self.table.received(message("strange", value=2, correlation_id="b"), 1)
        self.assertEqual((b.state, self.table.counts.out_of_band), ("SUCCESS", 0))

    def test_time_is_up(self) -> None:
        """celery K-10, R27: a wait ends; what comes later is there for the next one."""
        record = self.table.record("a")
        self.table.unreadable("a", DecodeError("no JSON"))
        waiting, patient = self.table.wait(record, 5), self.table.wait(record, 50)
        self.clock.advance(5)
        error = self.failureResultOf(waiting, RPCTimeout).value
        self.assertIn("within 5 s; it is PENDING; what came could not be read: no JSON", str(error))
        self.assertNoResult(patient)
        self.table.received(message("a", value=1), 1)
        self.assertEqual(self.successResultOf(patient).value, 1)
        self.assertEqual(self.table.counts.late, 0)
        self.failureResultOf(self.table.wait(self.table.record("b"), -1), ConfigurationError)

    def test_cancelling(self) -> None:
        """One wait that is cancelled takes nothing from the others."""
        record = self.table.record("a")
        first, second = self.table.wait(record, 5), self.table.wait(record, 5)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.table.waiting, 1)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual((self.table.waiting, len(self.table), self.clock.getDelayedCalls()), (0, 1, []))

    def test_a_wait_that_is_cancelled_by_another(self) -> None:
        """R27: who is told first may cancel the others: they are cancelled, and nothing is raised."""
        record = self.table.record("a")
        first, second = self.table.wait(record, 5), self.table.wait(record, 5)
        first.addCallback(lambda _: second.cancel())
        self.table.received(message("a"), 1)
        self.assertIsNone(self.successResultOf(first))
        self.failureResultOf(second, CancelledError)
        self.assertEqual((self.table.waiting, self.clock.getDelayedCalls()), (0, []))

    def test_waiting_again_from_a_failure(self) -> None:
        """R27: a wait that begins while the others are told of the end is one of its own."""
        record = self.table.record("a")
        again: list[Deferred[TaskResult]] = []
        self.table.wait(record, 5).addErrback(lambda _: again.append(self.table.wait(record, 7)))
        self.table.fail("a", ConnectionLost("gone"))
        self.table.fail("b", ConnectionLost("gone"))
        self.assertNoResult(again[0])
        self.table.received(message("a", value=1), 1)
        self.assertEqual(self.successResultOf(again[0]).value, 1)
        self.assertEqual((self.table.waiting, self.clock.getDelayedCalls()), (0, []))

    def test_what_is_no_id(self) -> None:
        """ConfigurationError: a wait for it would have no end."""
        for wrong in (5, "", None):
            self.assertRaises(ConfigurationError, self.table.record, wrong)

    def test_many(self) -> None:
        """Overloaded: a limit to what is waited for; a second wait for the same task is none more."""
        waits = [self.table.wait(self.table.record(f"{n}"), 5) for n in range(3)]
        self.failureResultOf(self.table.wait(self.table.record("x"), 5), Overloaded)
        waits.append(self.table.wait(self.table.record("0"), 5))
        self.table.fail_all(ConnectionLost("gone"))
        for waiting in waits:
            self.failureResultOf(waiting, ConnectionLost)
        self.assertEqual((self.table.waiting, self.clock.getDelayedCalls()), (0, []))

    def test_listeners(self) -> None:
        """What a listener raises is logged, and the next is called all the same."""
        record = self.table.record("a")
        seen: list[TaskResult] = []

        def broken(each: TaskResult) -> None:
            raise ValueError("a bug")

        record.listeners += [broken, seen.append]
        self.table.received(message("a"), 1)
        self.assertEqual(len(seen), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class KeepingTests(TableCase):
    """What is kept has a bound, whoever makes it grow."""

    def test_out_of_band(self) -> None:
        """celery A-18: it waits until somebody asks for it; the oldest go, and those of ours stay."""
        ours = self.table.record("ours")
        for task_id in ("a", "b", "c"):
            self.table.received(message(task_id, value=task_id), 1)
        self.assertEqual((self.table.counts.out_of_band, self.table.counts.dropped), (3, 1))
        self.assertEqual(self.table.record("c").state, "SUCCESS")
        self.assertEqual(self.table.record("a").state, "PENDING")
        self.assertIs(self.table.record("ours"), ours)
        self.table.received(message("b", "STARTED"), 1)
        self.assertEqual((self.table.record("b").state, self.table.counts.duplicate), ("SUCCESS", 1))

    def test_large_ones(self) -> None:
        """Their octets count, too."""
        self.table.received(message("a"), 10 * 2**20)
        self.table.received(message("b", "STARTED"), 6 * 2**20)
        self.table.received(message("b"), 5 * 2**20)
        self.assertEqual(self.table.counts.dropped, 0)
        self.table.received(message("c"), 2 * 2**20)
        self.assertEqual(self.table.counts.dropped, 1)
        self.assertEqual(self.table.record("a").state, "PENDING")
        self.table.received(message("d"), 17 * 2**20)
        self.assertEqual(self.table.record("d").state, "PENDING")

    def test_nobody_waits(self) -> None:
        """Tasks whose results nobody reads: the oldest are forgotten; those that are waited for never."""
        waiting = self.table.wait(self.table.record("waited"), 50)
        for number in range(6):
            self.table.record(f"{number}")
        self.assertEqual((len(self.table), self.table.counts.dropped), (5, 2))
        self.assertIsNone(self.table.peek("0"))
        self.table.received(message("waited"), 1)
        self.assertEqual(self.successResultOf(waiting).state, "SUCCESS")

    def test_a_record_that_was_forgotten(self) -> None:
        """A handle can wait for it all the same."""
        record = self.table.record("a")
        for number in range(6):
            self.table.record(f"{number}")
        waiting = self.table.wait(record, 5)
        self.table.received(message("a", value=1), 1)
        self.assertEqual(self.successResultOf(waiting).value, 1)

    def test_a_record_that_was_dropped_and_told(self) -> None:
        """celery A-18: its result came out of band; a handle finds it, and need not wait."""
        record = self.table.record("a")
        for number in range(6):
            self.table.record(f"{number}")
        self.table.received(message("a", value=1), 1)
        found = self.table.find("a")
        assert found is not None
        self.assertIsNot(found, record)
        self.assertEqual(self.successResultOf(self.table.wait(found, 5)).value, 1)
        self.table.received(message("b", "STARTED"), 1)
        started = self.table.find("b")
        assert started is not None
        waiting = self.table.wait(started, 5)
        self.table.received(message("b", value=2), 1)
        self.assertEqual(self.successResultOf(waiting).value, 2)

    def test_ended_and_not_ended(self) -> None:
        """What has ended takes no place of what has not."""
        for number in range(3):
            self.table.record(f"{number}")
        for number in range(9):
            self.table.record(f"e{number}")
            self.table.received(message(f"e{number}"), 1)
        self.assertEqual((len(self.table), self.table.counts.dropped), (7, 5))
        self.assertIsNotNone(self.table.peek("0"))
        self.assertIsNone(self.table.peek("e4"))

    def test_large_ones_of_ours(self) -> None:
        """Octets of what has ended are bounded; the newest is there, however large it is."""
        for number in range(3):
            self.table.record(f"{number}")
            self.table.received(message(f"{number}"), 30 * 2**20)
        self.assertEqual([self.table.peek(f"{number}") is None for number in range(3)], [True, False, False])
        self.table.record("3")
        self.table.received(message("3"), 100 * 2**20)
        self.assertEqual((len(self.table), self.table.record("3").state), (1, "SUCCESS"))
        self.table.forget("3")
        self.assertEqual(len(self.table), 0)
        for number in range(2):
            self.table.record(f"n{number}")
            self.table.received(message(f"n{number}"), 30 * 2**20)
        self.assertEqual(len(self.table), 2)

    def test_expiry(self) -> None:
        """celery A-30: after `expires` seconds nothing is known of it any more."""
        self.table.record("a")
        self.table.received(message("a"), 1)
        self.table.received(message("b"), 1)
        self.clock.advance(101)
        self.table.record("c")
        self.assertIsNone(self.table.peek("a"))
        self.assertEqual((self.table.record("b").state, self.table.counts.dropped), ("PENDING", 2))

    def test_forgetting(self) -> None:
        """celery A-33: what still comes is late, not out of band."""
        waiting = self.table.wait(self.table.record("a"), 5)
        self.table.forget("a")
        self.failureResultOf(waiting, CancelledError)
        self.table.received(message("a"), 1)
        self.assertEqual((self.table.counts.late, self.table.counts.out_of_band, len(self.table)), (1, 0, 0))
        for number in range(1_000):
            self.table.forget(f"{number}")
        self.table.received(message("a"), 1)
        self.assertEqual((self.table.counts.late, self.table.counts.out_of_band), (1, 1))

    def test_closing(self) -> None:
        """Nothing is left."""
        waiting = self.table.wait(self.table.record("a"), 5)
        self.table.received(message("b"), 1)
        self.table.close(ConnectionLost("closed"))
        self.failureResultOf(waiting, ConnectionLost)
        self.assertEqual((len(self.table), self.clock.getDelayedCalls()), (0, []))
        self.assertIn("0 tasks, 0 waited for, 0 out of band", repr(self.table))

    def test_limits(self) -> None:
        """ConfigurationError for what is no limit."""
        self.assertRaises(ConfigurationError, ResultTable, self.clock, max_kept=0)
        self.assertRaises(ConfigurationError, ResultTable, self.clock, max_waiting=True)
