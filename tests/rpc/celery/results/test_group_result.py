"""GroupResult and ResultIterator: many tasks at a time."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.rpc.celery.results.case import ResultCase
from txmsg.errors import ConfigurationError, NotSupportedByBackend, Overloaded, RemoteError, RPCTimeout
from txmsg.rpc.celery.results import AsyncResult, GroupResult, RPCBackend
from txmsg.rpc.celery.results.arriving import ResultIterator


class ManyCase(ResultCase):
    """The queue is there."""

    def setUp(self) -> None:
        """Ready."""
        super().setUp()
        self.done(self.backend.ready())

    def group(self, *task_ids: str) -> GroupResult:
        """Handles."""
        return GroupResult("g", [AsyncResult(task_id, self.backend) for task_id in task_ids])

    def idle(self) -> None:
        """Nothing waits."""
        calls: list[Any] = list(self.clock.getDelayedCalls())  # also those of the broker
        timers = [call for call in calls if getattr(call.func, "__self__", None) is self.table]
        self.assertEqual((self.table.waiting, timers), (0, []))


class JoinTests(ManyCase):
    """celery A-27, A-28, M-01 to M-03."""

    def test_in_order(self) -> None:
        """celery M-01: whatever the order in which they come."""
        group = self.group("a", "b", "c")
        joined = group.join()
        for task_id in ("c", "a", "b"):
            self.assertNoResult(joined)
            self.store(task_id, task_id.upper())
        self.assertEqual(self.done(joined), ["A", "B", "C"])
        self.assertEqual(self.done(group.join()), ["A", "B", "C"])
        self.assertEqual((len(group), group[1].id, group.id, group.completed_count), (3, "b", "g", 3))
        self.assertTrue(group.ready() and group.successful() and not group.waiting() and not group.failed())
        self.assertEqual(repr(group), "<GroupResult g: 3 of 3>")
        self.idle()

    def test_first_failure(self) -> None:
        """celery M-03: the first to come, or (plain) the first that was sent; the others are absorbed."""
        group = self.group("a", "b", "c")
        native, plain = group.join(), group.join(native=False)
        kept = group.join(propagate=False)
        self.store("c", ValueError("c"), "FAILURE")
        self.assertEqual(self.failureResultOf(native, RemoteError).value.exc_args, ("c",))
        self.assertNoResult(plain)
        self.store("b", ValueError("b"), "FAILURE")
        self.store("a", 1)
        self.assertEqual(self.failureResultOf(plain, RemoteError).value.exc_args, ("b",))
        self.assertEqual([str(value) for value in self.done(kept)], ["1", "ValueError: b", "ValueError: c"])
        self.assertTrue(group.failed())
        self.idle()

    def test_plain_success(self) -> None:
        """Without the native join, values are in order, too."""
        group = self.group("a", "b")
        joined = group.join(native=False)
        self.store("b", 2)
        self.store("a", 1)
        self.assertEqual(self.done(joined), [1, 2])

    def test_nothing_waits_after_a_failure(self) -> None:
        """celery M-03: those that have not come are not waited for, but what comes of them is known."""
        group = self.group("a", "b")
        joined = group.join()
        self.store("a", ValueError("a"), "FAILURE")
        self.failureResultOf(joined, RemoteError)
        self.idle()
        self.store("b", 2)
        self.assertEqual((group[1].result, self.table.counts.out_of_band), (2, 0))

    def test_time_limit(self) -> None:
        """celery M-02: one for all of them."""
        joined = self.group("a", "b").join(3)
        self.turn(2)
        self.store("a", 1)
        self.turn(1)
        self.failureResultOf(joined, RPCTimeout)
        self.idle()

    def test_cancelling(self) -> None:
        """Nothing waits any more."""
        joined = self.group("a", "b").join()
        joined.cancel()
        self.failureResultOf(joined, CancelledError)
        self.idle()

    def test_ignored(self) -> None:
        """celery L-06: None for those whose result is ignored; they are not waited for."""
        group = self.group("a", "b")
        group[0].ignore()
        joined = group.join()
        self.store("b", 2)
        self.assertEqual(self.done(joined), [None, 2])

    def test_states(self) -> None:
        """Each state of each task is told, with whose it is."""
        seen: list[tuple[str, str]] = []
        joined = self.group("a", "b").join(on_state_change=lambda task_id, each: seen.append((task_id, each.state)))
        self.store("b", 1, "MINE")
        self.store("a", 1)
        self.store("b", 2)
        self.done(joined)
        self.assertEqual(seen, [("b", "MINE"), ("a", "SUCCESS"), ("b", "SUCCESS")])

    def test_limits(self) -> None:
        """celery A-28: it cannot be saved; and its tasks have one backend."""
        group = self.group("a")
        self.failureResultOf(group.save(), NotSupportedByBackend)
        self.failureResultOf(group.delete(), NotSupportedByBackend)
        empty = GroupResult("g", [])
        self.assertEqual((self.done(empty.join()), self.done(empty.revoke())), ([], None))
        self.failureResultOf(empty.save(), ConfigurationError)
        self.failureResultOf(empty.delete(), ConfigurationError)
        mixed = GroupResult("g", [*group, AsyncResult("b", self.worker)])
        self.failureResultOf(mixed.join(), ConfigurationError)
        self.failureResultOf(group.revoke(), ConfigurationError)
        waiting = group.join()
        group.forget()
        self.failureResultOf(waiting, CancelledError)


class ArrivingTests(ManyCase):
    """celery B-12."""

    def next(self, iterator: ResultIterator) -> Deferred[Any]:
        """One step."""
        return Deferred.fromCoroutine(iterator.__anext__())

    def test_as_completed(self) -> None:
        """In the order in which they come; failures are not raised; those that are there come first."""
        self.store("late", 0)
        iterator = self.backend.get_many(["a", "late", "b"])
        self.assertEqual(self.done(self.next(iterator))[0], "late")
        waiting = self.next(iterator)
        self.store("b", ValueError("v"), "FAILURE")
        task_id, message = self.done(waiting)
        self.assertEqual((task_id, message.raises), ("b", True))
        self.store("a", 1)
        self.assertEqual(self.done(self.next(iterator))[0], "a")
        self.failureResultOf(self.next(iterator), StopAsyncIteration)
        self.idle()

    def test_in_order(self) -> None:
        """All of them, as they were asked for."""
        found = Deferred.fromCoroutine(self.backend.get_many(["a", "b"]).in_order())
        self.store("b", 2)
        self.store("a", 1)
        self.assertEqual([each.value for each in self.done(found)], [1, 2])

    def test_what_has_come_before_the_time_is_up(self) -> None:
        """It is given out first; then RPCTimeout, once."""
        iterator = self.backend.get_many(["a", "b"], 3)
        step = self.next(iterator)
        self.store("a", 1)
        self.done(step)
        self.turn(3)
        self.failureResultOf(self.next(iterator), RPCTimeout)
        self.failureResultOf(self.next(iterator), StopAsyncIteration)
        self.idle()

    def test_closed_in_between(self) -> None:
        """Leaving the loop and `close()`: nothing waits; a step that is cancelled closes it, too."""
        iterator = self.backend.get_many(["a", "b"])
        self.assertIs(iterator.__aiter__(), iterator)
        step = self.next(iterator)
        step.cancel()
        self.failureResultOf(step, CancelledError)
        iterator.close()
        self.idle()

    def test_too_many(self) -> None:
        """Overloaded, and none of them waits."""
        small = RPCBackend(self.connection, max_waiting=2)
        step = self.next(small.get_many(["a", "b", "c"]))
        self.turn()
        self.failureResultOf(step, Overloaded)
        self.assertEqual(small.table.waiting, 0)
        self.done(small.close())

    def test_one_step_at_a_time(self) -> None:
        """R27: a second step would make the first wait for ever: it is refused, and the first goes on."""
        arriving = self.backend.get_many(["a"])
        first = Deferred.fromCoroutine(arriving.__anext__())
        self.failureResultOf(Deferred.fromCoroutine(arriving.__anext__()), ConfigurationError)
        self.store("a", 1)
        self.assertEqual(self.done(first)[0], "a")
