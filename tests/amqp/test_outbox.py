"""Outbox and HeldQueue: publishes that wait keep their order, their bound and their deadline."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import outcomes
from txmsg.amqp.outbox import HeldQueue, Outbox
from txmsg.errors import ConnectionLost, NotSent, Overloaded

Publish = Deferred[int | None]


class FakeChannel:
    """A channel that holds publishes in `queue`, and writes them to the shared `wire`."""

    def __init__(self, outbox: Outbox, gate: list[bool], wire: list[str]) -> None:
        self.outbox = outbox
        self.queue = HeldQueue(outbox)
        self.gate = gate
        self.wire = wire

    def publish(self, name: str, size: int = 10, deadline: float | None = None) -> Publish:
        publish: Publish = Deferred()

        def write() -> None:
            self.wire.append(name)
            publish.callback(None)

        self.queue.hold_publish(write, size, publish, deadline)
        self.outbox.hold(self)
        return publish

    def call(self, name: str) -> None:
        self.queue.hold_call(lambda: self.wire.append(name))

    def drain_held(self) -> None:
        self.queue.drain(lambda: self.gate[0])
        if not self.queue:
            self.outbox.holding.pop(self, None)

    def expire_held(self, now: float, why: str) -> None:
        self.queue.expire(now, why)
        self.drain_held()


class OutboxTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.gate = [False]
        self.wire: list[str] = []
        self.outbox = Outbox(self.clock, 100, 1000, lambda: self.gate[0], lambda: "the test says so")

    def channel(self) -> FakeChannel:
        return FakeChannel(self.outbox, self.gate, self.wire)

    def open_gate(self) -> None:
        self.gate[0] = True
        self.outbox.drain()


class OrderTests(OutboxTestCase):
    def test_nothing_leaves_while_the_gate_is_closed(self) -> None:
        """I-06, R16: held publishes wait; they leave in the order of the calls."""
        channel = self.channel()
        publishes = [channel.publish(str(n)) for n in range(5)]
        self.outbox.drain()
        self.assertEqual(self.wire, [])
        self.assertEqual((self.outbox.messages, self.outbox.bytes), (5, 50))
        self.open_gate()
        self.assertEqual(self.wire, ["0", "1", "2", "3", "4"])
        self.assertEqual((self.outbox.messages, self.outbox.bytes), (0, 0))
        for publish in publishes:
            self.successResultOf(publish)

    def test_methods_keep_their_place_behind_publishes(self) -> None:
        """R4: a call waits behind the publishes before it, and goes with the last of them."""
        channel = self.channel()
        channel.publish("publish 1")
        channel.call("declare")
        channel.publish("publish 2")
        self.open_gate()
        self.assertEqual(self.wire, ["publish 1", "declare", "publish 2"])

    def test_a_call_at_the_front_goes_though_the_gate_is_closed(self) -> None:
        """Only publishes are held: when those before it are gone, a call is written at once."""
        channel = self.channel()
        first = channel.publish("publish 1")
        channel.call("declare")
        channel.publish("publish 2")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        channel.drain_held()
        self.assertEqual(self.wire, [], "a cancelled publish is passed over only when publishes may go")
        self.open_gate()
        self.assertEqual(self.wire, ["declare", "publish 2"])

    def test_the_gate_may_close_again_half_way(self) -> None:
        """The socket's buffer is full again after two: the rest stays, in order."""
        channel = self.channel()
        names = [str(n) for n in range(4)]
        for name in names:
            publish = channel.publish(name)
            if name == "1":
                publish.addCallback(lambda result: self.gate.__setitem__(0, False))
        self.open_gate()
        self.assertEqual(self.wire, names[:2])
        self.assertEqual(self.outbox.messages, 2)
        self.open_gate()
        self.assertEqual(self.wire, names)

    def test_channels_in_the_order_they_began_to_hold(self) -> None:
        """A channel that is done is no longer among the holding ones."""
        first, second = self.channel(), self.channel()
        second.publish("second")
        first.publish("first")
        self.open_gate()
        self.assertEqual(self.wire, ["second", "first"])
        self.assertEqual(len(self.outbox.holding), 0)

    def test_a_cancelled_publish_never_leaves(self) -> None:
        """R8, NotSent's promise: what is cancelled while it is held is not written, and makes room."""
        channel = self.channel()
        publishes = [channel.publish(str(n)) for n in range(3)]
        publishes[1].cancel()
        self.failureResultOf(publishes[1], CancelledError)
        self.open_gate()
        self.assertEqual(self.wire, ["0", "2"])
        self.assertEqual((self.outbox.messages, self.outbox.bytes), (0, 0))

    def test_publishing_while_draining(self) -> None:
        """R32, R4: what a callback publishes during the drain goes behind what is held."""
        channel = self.channel()
        first = channel.publish("first")
        channel.publish("second")

        def publish_third(result: object) -> None:
            channel.publish("third")

        first.addCallback(publish_third)
        self.open_gate()
        self.assertEqual(self.wire, ["first", "second", "third"])
        self.assertEqual(self.outbox.messages, 0)

    def test_waiters_for_room(self) -> None:
        """K-31: who wrote when the buffer filled up is told when it takes more, after the held ones left."""
        channel = self.channel()
        room: Publish = Deferred()
        channel.publish("held").addCallback(lambda result: self.assertNoResult(room))
        self.outbox.wait_for_room(room)
        cancelled: Publish = Deferred()
        self.outbox.wait_for_room(cancelled)
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.outbox.drain()
        self.assertNoResult(room)
        self.open_gate()
        self.assertIsNone(self.successResultOf(room))


class BoundTests(OutboxTestCase):
    def test_messages(self) -> None:
        """R6: the 101st fails at once, with the bound and the reason in its text."""
        channel = self.channel()
        for n in range(100):
            channel.publish(str(n), size=1)
        error = self.assertRaises(Overloaded, channel.publish, "one too many", 1)
        self.assertIn("100 messages", str(error))
        self.assertIn("the test says so", str(error))
        self.assertEqual(self.outbox.messages, 100)
        self.open_gate()
        self.assertNotIn("one too many", self.wire)

    def test_bytes(self) -> None:
        """R6: what would go beyond the bytes does not fit; a smaller one still does."""
        channel = self.channel()
        channel.publish("a", size=900)
        self.assertRaises(Overloaded, channel.publish, "b", 101)
        channel.publish("c", size=100)
        self.assertRaises(Overloaded, channel.publish, "d", 1)
        self.assertEqual(self.outbox.bytes, 1000)

    def test_one_message_larger_than_the_bound(self) -> None:
        """R6: taken when nothing else is held, or it could never be sent; then nothing fits beside it."""
        channel = self.channel()
        channel.publish("large", size=5000)
        self.assertRaises(Overloaded, channel.publish, "small", 1)
        self.open_gate()
        self.assertEqual(self.wire, ["large"])

    def test_the_bound_is_shared_by_the_channels(self) -> None:
        """R6: it is the connection's."""
        channels = [self.channel() for _ in range(2)]
        for n in range(100):
            channels[n % 2].publish(str(n), size=1)
        for channel in channels:
            self.assertRaises(Overloaded, channel.publish, "x", 1)

    def test_calls_do_not_count(self) -> None:
        """R6: only publishes take room."""
        channel = self.channel()
        channel.publish("a", size=1000)
        channel.call("declare")
        self.assertEqual((self.outbox.messages, self.outbox.bytes), (1, 1000))

    def test_overloaded_is_not_sent(self) -> None:
        """R2: no byte has left, so whoever catches NotSent may publish again."""
        self.assertTrue(issubclass(Overloaded, NotSent))


class DeadlineTests(OutboxTestCase):
    def wait(self, seconds: float) -> None:
        self.clock.pump([0.25] * int(seconds * 4))

    def test_not_sent_at_the_deadline(self) -> None:
        """R2: NotSent with the reason for the wait, within a second after its deadline; later ones stay."""
        channel = self.channel()
        early, late, unlimited = (channel.publish(str(d), deadline=d) for d in (5.0, 20.0, None))
        self.wait(4.75)
        self.assertNoResult(early)
        self.wait(1.25)
        error = self.failureResultOf(early, NotSent).value
        self.assertIn("the test says so", str(error))
        self.assertNotIsInstance(error, Overloaded)
        self.assertNoResult(late)
        self.assertEqual(self.outbox.messages, 2)
        self.open_gate()
        self.assertEqual(self.wire, ["20.0", "None"])
        self.assertEqual(outcomes([late, unlimited]), [None, None])

    def test_a_call_goes_when_those_before_it_expire(self) -> None:
        """R2: a method behind expired publishes is written, in its order."""
        channel = self.channel()
        expired = channel.publish("expires", deadline=1.0)
        channel.call("declare")
        channel.publish("stays")
        channel.call("delete")
        self.wait(2)
        self.failureResultOf(expired, NotSent)
        self.assertEqual(self.wire, ["declare"])
        self.open_gate()
        self.assertEqual(self.wire, ["declare", "stays", "delete"])

    def test_no_timer_when_nothing_is_held(self) -> None:
        """R28: the timer ends with the holding."""
        self.channel().publish("a")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.open_gate()
        self.wait(2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_publishing_again_in_the_errback(self) -> None:
        """R32: whoever tries again is held again, behind the others, and counted."""
        channel = self.channel()
        first = channel.publish("a", deadline=1.0)
        channel.publish("b", deadline=9.0)

        def publish_again(failure: object) -> None:
            channel.publish("again")

        first.addErrback(publish_again)
        self.wait(2)
        self.assertEqual(self.outbox.messages, 2)
        self.open_gate()
        self.assertEqual(self.wire, ["b", "again"])

    def test_cancelled_before_its_deadline(self) -> None:
        """R8: the deadline only takes it out of the count."""
        publish = self.channel().publish("a", deadline=1.0)
        publish.cancel()
        self.failureResultOf(publish, CancelledError)
        self.wait(2)
        self.assertEqual((self.outbox.messages, self.outbox.bytes), (0, 0))


class EndTests(OutboxTestCase):
    def test_held_publishes_fail_as_not_sent(self) -> None:
        """R2: the end of the channel fails them oldest first, with the reason as the cause."""
        channel, reason, order = self.channel(), ConnectionLost("gone"), list[str]()
        publishes = [channel.publish(str(n)) for n in range(3)]

        def note(failure: Failure, n: int) -> Failure:
            order.append(str(n))
            return failure

        for n, publish in enumerate(publishes):
            publish.addErrback(note, n)
        publishes[1].cancel()
        channel.queue.close(reason)
        found = outcomes(publishes)
        self.assertEqual([type(o) for o in found], [NotSent, CancelledError, NotSent])
        self.assertIs(found[0].cause, reason)
        self.assertIn("gone", str(found[0]))
        self.assertEqual(order, ["1", "0", "2"])
        self.assertEqual((self.outbox.messages, self.outbox.bytes), (0, 0))
        self.open_gate()
        self.assertEqual(self.wire, [])

    def test_the_end_in_the_middle_of_a_drain(self) -> None:
        """R2, R32: a callback ends the channel while it drains: the rest fails, nothing is written or counted twice."""
        channel = self.channel()
        first = channel.publish("first")
        second = channel.publish("second")
        channel.call("declare")
        first.addCallback(lambda result: channel.queue.close(ConnectionLost()))
        self.open_gate()
        self.successResultOf(first)
        self.failureResultOf(second, NotSent)
        self.assertEqual(self.wire, ["first"])
        self.assertEqual((self.outbox.messages, self.outbox.bytes), (0, 0))

    def test_close_stops_the_timer_and_tells_the_waiters(self) -> None:
        """R28: nothing is left on the clock; those who wait for room had written, so they succeed."""
        channel = self.channel()
        held = channel.publish("held")
        room: Publish = Deferred()
        self.outbox.wait_for_room(room)
        channel.queue.close(ConnectionLost())
        self.outbox.close()
        self.outbox.close()
        self.failureResultOf(held, NotSent)
        self.successResultOf(room)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_inside_an_expiry(self) -> None:
        """R28, R32: the errback of an expired publish ends the connection; the timer does not start again."""
        channels = [self.channel() for _ in range(2)]
        publishes = [channel.publish("x", deadline=1.0) for channel in channels]

        def end(failure: object) -> None:
            for channel in channels:
                channel.queue.close(ConnectionLost())
            self.outbox.close()

        publishes[0].addErrback(end)
        self.clock.advance(1)
        self.successResultOf(publishes[0])
        self.failureResultOf(publishes[1], NotSent)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_repr(self) -> None:
        self.channel().publish("a", size=7)
        self.assertEqual(repr(self.outbox), "<Outbox 1/100 messages, 7/1000 bytes>")
