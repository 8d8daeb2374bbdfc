"""PendingReplies: replies find their calls, and calls that nobody waits for keep their place."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import outcomes
from txmsg.amqp.pending import Call, PendingReplies
from txmsg.errors import ChannelClosed, NotFound, OperationTimeout
from txmsg.wire.methods import Method, basic, exchange, queue, tx


class PendingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.is_blocked = False
        self.pending = PendingReplies(self.clock, 30.0, lambda: self.is_blocked)

    def tearDown(self) -> None:
        for call in self.pending._calls:
            call.deferred.addErrback(lambda failure: None)
        self.pending.fail_all(ChannelClosed())
        self.assertEqual(self.clock.getDelayedCalls(), [], "R28")

    def call(self, method: Method, on_reply: Any = None) -> Call:
        call = self.pending.add(method, on_reply)
        call.written = True
        return call

    def resolve(self, reply: Method, tag: str | None = None) -> bool:
        return self.pending.resolve(type(reply), reply, tag)


class ResolvingTests(PendingTestCase):
    def test_replies_go_to_the_calls_in_order(self) -> None:
        """K-07, M-26: equal methods are answered in the order in which they were called."""
        calls = [self.call(queue.Declare(queue=name)) for name in ("a", "b", "c")]
        # The name in the reply plays no part: a broker may answer with another one.
        for name in ("a", "zzz", "c"):
            self.assertTrue(self.resolve(queue.DeclareOk(queue=name)))
        self.assertEqual([self.successResultOf(call.deferred).queue for call in calls], ["a", "zzz", "c"])
        self.assertEqual(len(self.pending), 0)

    def test_replies_out_of_order_go_by_class(self) -> None:
        """RabbitMQ's queue processes answer later than its channel: a bind-ok may overtake a consume-ok."""
        consume = self.call(basic.Consume(queue="q", consumer_tag="c"))
        commit = self.call(tx.Commit())
        declare = self.call(queue.Declare(queue="q"))
        self.assertTrue(self.resolve(queue.DeclareOk(queue="q")))
        self.assertNoResult(consume.deferred)
        self.assertNoResult(commit.deferred)
        self.assertTrue(self.resolve(tx.CommitOk()))
        self.assertTrue(self.resolve(basic.ConsumeOk(consumer_tag="c"), "c"))
        for call in (consume, commit, declare):
            self.successResultOf(call.deferred)

    def test_consume_and_cancel_replies_go_by_tag(self) -> None:
        """K-18, K-22: each queue process answers in its own time."""
        first = self.call(basic.Consume(queue="a", consumer_tag="1"))
        second = self.call(basic.Consume(queue="b", consumer_tag="2"))
        cancel = self.call(basic.Cancel(consumer_tag="1"))
        self.assertTrue(self.resolve(basic.ConsumeOk(consumer_tag="2"), "2"))
        self.assertNoResult(first.deferred)
        self.successResultOf(second.deferred)
        self.assertFalse(self.resolve(basic.CancelOk(consumer_tag="2"), "2"))
        self.assertTrue(self.resolve(basic.ConsumeOk(consumer_tag="1"), "1"))
        self.assertTrue(self.resolve(basic.CancelOk(consumer_tag="1"), "1"))
        self.successResultOf(first.deferred)
        self.successResultOf(cancel.deferred)

    def test_either_reply_of_a_get(self) -> None:
        """K-27, K-30: get-ok and get-empty answer the oldest get."""
        calls = [self.call(basic.Get(queue="q")) for _ in range(2)]
        self.assertTrue(self.resolve(basic.GetEmpty()))
        self.assertIsInstance(self.successResultOf(calls[0].deferred), basic.GetEmpty)
        self.assertTrue(self.resolve(basic.GetOk(delivery_tag=1)))
        self.successResultOf(calls[1].deferred)

    def test_a_reply_that_nobody_asked_for(self) -> None:
        """False, so that the channel can call it a violation; waiting calls stay as they are."""
        self.assertFalse(self.resolve(queue.DeclareOk()))
        call = self.call(queue.Declare())
        self.assertFalse(self.resolve(queue.DeleteOk()))
        self.assertFalse(self.resolve(exchange.DeclareOk()))
        self.assertNoResult(call.deferred)

    def test_a_call_that_is_not_written_gets_no_reply(self) -> None:
        """A method held back behind publishes has not been asked yet."""
        held = self.pending.add(queue.Declare(queue="held"))
        self.assertFalse(self.resolve(queue.DeclareOk()))
        held.written = True
        self.assertTrue(self.resolve(queue.DeclareOk()))
        self.successResultOf(held.deferred)

    def test_on_reply_decides_what_the_caller_gets(self) -> None:
        """K-27: what the Deferred fires with need not be the reply itself."""
        seen: list[tuple[Any, bool]] = []

        def on_reply(reply: Any, abandoned: bool) -> str:
            seen.append((reply, abandoned))
            return "result"

        call = self.call(queue.Declare(), on_reply)
        reply = queue.DeclareOk(queue="q")
        self.resolve(reply)
        self.assertEqual(self.successResultOf(call.deferred), "result")
        self.assertEqual(seen, [(reply, False)])

    def test_a_reply_callback_may_make_new_calls(self) -> None:
        """W-86, R32: the new call is behind, and takes no reply that is not its own."""
        first = self.call(queue.Declare(queue="a"))
        second: list[Call] = []
        first.deferred.addCallback(lambda reply: second.append(self.call(queue.Declare(queue="b"))))
        self.resolve(queue.DeclareOk(queue="a"))
        self.assertNoResult(second[0].deferred)
        self.resolve(queue.DeclareOk(queue="b"))
        self.assertEqual(self.successResultOf(second[0].deferred).queue, "b")

    def test_repr_names_the_methods(self) -> None:
        self.call(queue.Declare())
        self.call(basic.Get())
        self.assertEqual(repr(self.pending), "<PendingReplies ['queue.declare', 'basic.get']>")


class AbandoningTests(PendingTestCase):
    def test_the_late_reply_of_a_cancelled_call_is_swallowed(self) -> None:
        """Cancelling keeps the place: the reply does not go to the next call of its kind."""
        abandoned: list[bool] = []
        first = self.call(queue.Declare(queue="a"), lambda reply, is_abandoned: abandoned.append(is_abandoned))
        second = self.call(queue.Declare(queue="b"))
        first.deferred.cancel()
        self.failureResultOf(first.deferred, CancelledError)
        self.assertTrue(self.resolve(queue.DeclareOk(queue="a")))
        self.assertEqual(abandoned, [True], "whoever made the call may undo what the late reply stands for")
        self.assertNoResult(second.deferred)
        self.assertTrue(self.resolve(queue.DeclareOk(queue="b")))
        self.assertEqual(self.successResultOf(second.deferred).queue, "b")

    def test_time_out(self) -> None:
        """R2: OperationTimeout names the method and the time; the late reply is swallowed."""
        call = self.call(queue.Declare(queue="a"))
        self.clock.advance(29.9)
        self.assertNoResult(call.deferred)
        self.clock.advance(0.2)
        error = self.failureResultOf(call.deferred, OperationTimeout).value
        self.assertIn("queue.declare", str(error))
        self.assertIn("30 s", str(error))
        self.assertFalse(error.blocked)
        later = self.call(queue.Declare(queue="b"))
        self.assertTrue(self.resolve(queue.DeclareOk(queue="a")))
        self.assertNoResult(later.deferred)

    def test_time_out_while_blocked_says_so(self) -> None:
        """R16: the reason may be that the broker reads nothing."""
        call = self.call(queue.Declare())
        self.is_blocked = True
        self.clock.advance(30)
        error = self.failureResultOf(call.deferred, OperationTimeout).value
        self.assertTrue(error.blocked)
        self.assertIn("blocked", str(error))

    def test_each_call_has_its_own_time(self) -> None:
        """The clock starts with the call."""
        first = self.call(queue.Declare())
        self.clock.advance(20)
        second = self.call(queue.Purge())
        self.clock.advance(10)
        self.failureResultOf(first.deferred, OperationTimeout)
        self.assertNoResult(second.deferred)
        self.clock.advance(20)
        self.failureResultOf(second.deferred, OperationTimeout)

    def test_an_answered_or_cancelled_call_has_no_timer(self) -> None:
        """R28: a reply, a cancel and an error each stop the time."""
        answered, cancelled = self.call(queue.Declare()), self.call(queue.Purge())
        forgotten = self.pending.add(queue.Delete())
        self.resolve(queue.DeclareOk())
        cancelled.deferred.cancel()
        self.pending.forget(forgotten)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.failureResultOf(cancelled.deferred, CancelledError)
        self.successResultOf(answered.deferred)

    def test_without_a_limit(self) -> None:
        """operation_timeout=None, or a call that has another limit of its own, starts no timer."""
        unlimited = PendingReplies(self.clock, None, lambda: False)
        unlimited.add(queue.Declare())
        self.pending.add(queue.Declare(), limited=False)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancel_inside_the_time_out(self) -> None:
        """W-18: cancelling a call that has just timed out, in its own errback, is harmless."""
        call = self.call(queue.Declare())
        call.deferred.addErrback(lambda failure: call.deferred.cancel())
        self.clock.advance(30)
        self.successResultOf(call.deferred)


class EndingTests(PendingTestCase):
    def test_all_fail_with_the_one_reason_oldest_first(self) -> None:
        """K-02, K-08: written or not, with the same object."""
        reason, order = NotFound("no exchange 'x'"), list[str]()
        calls = [self.call(queue.Declare()), self.call(basic.Get()), self.pending.add(queue.Purge())]

        def note(failure: Failure, name: str) -> BaseException | None:
            order.append(name)
            return failure.value

        for call in calls:
            call.deferred.addErrback(note, call.method.NAME)
        self.pending.fail_all(reason)
        for call in calls:
            self.assertIs(self.successResultOf(call.deferred), reason)
        self.assertEqual(order, ["queue.declare", "basic.get", "queue.purge"])

    def test_an_abandoned_call_is_not_failed_again(self) -> None:
        """R2: cancelled or timed out is its outcome; the end adds none."""
        cancelled, timed_out = self.call(queue.Declare()), self.call(queue.Purge())
        cancelled.deferred.cancel()
        self.clock.advance(30)
        self.pending.fail_all(ChannelClosed())
        self.assertEqual(
            [type(o) for o in outcomes([cancelled.deferred, timed_out.deferred])], [CancelledError, OperationTimeout]
        )

    def test_errbacks_may_call_and_cancel(self) -> None:
        """K-11, W-17: the list is detached first, so an errback can cancel a neighbour, call again, or end again."""
        first, second, third = (self.call(queue.Declare()) for _ in range(3))
        again: list[Call] = []

        def meddle(failure: object) -> None:
            second.deferred.cancel()
            again.append(self.call(queue.Declare()))
            self.pending.fail_all(ChannelClosed("again"))

        first.deferred.addErrback(meddle)
        self.pending.fail_all(ChannelClosed("the end"))
        self.successResultOf(first.deferred)
        self.failureResultOf(second.deferred, CancelledError)
        self.assertEqual(self.failureResultOf(third.deferred).value.reply_text, "the end")
        self.assertEqual(self.failureResultOf(again[0].deferred).value.reply_text, "again")
