"""What is special about ``memory://``, on a clock that a test turns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmsg.broker.interfaces import NoJournal
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.queues.queue import PENDING
from txmsg.broker.store import StoreFailed
from txmsg.errors import (
    AlreadySettled,
    ChannelLimitReached,
    ConfigurationError,
    ConnectionForced,
    EncodeError,
    NotAllowed,
    NotFound,
    Overloaded,
    PreconditionFailed,
    TxmsgError,
    WrongThread,
)
from txmsg.transports.memory import MemoryChannel, MemoryConnection, MemoryDelivery, MemoryTransport
from txmsg.transports.memory import channel as memory_channel
from txmsg.transports.memory import consumer as memory_consumer


class MemoryTestCase(SynchronousTestCase):
    """A transport on a clock."""

    limits = BrokerLimits()

    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = MemoryTransport(reactor=self.clock, limits=self.limits)
        self.addCleanup(self.transport.reset)

    def connect(self, url: str = "memory://") -> MemoryConnection:
        return self.successResultOf(self.transport.connect(url))

    def channel(self, url: str = "memory://") -> MemoryChannel:
        return self.successResultOf(self.connect(url).channel())

    def queue(self, channel: MemoryChannel, *bodies: bytes, **settings: Any) -> str:
        """A new queue with these messages."""
        name = self.successResultOf(channel.queue_declare("", **settings)).name
        for body in bodies:
            self.successResultOf(channel.publish("", name, body))
        return name

    def depth(self, name: str, url: str = "memory://") -> tuple[int, int]:
        """Ready and unsettled."""
        queue = self.transport.vhost(url).queues[name]
        return queue.message_count, queue.unacked_count

    def get(self, channel: MemoryChannel, queue: str) -> MemoryDelivery:
        delivery = self.successResultOf(channel.get(queue))
        assert delivery is not None
        return delivery


class BrokenJournal(NoJournal):
    """Of a disk that takes nothing."""

    is_durable = True

    def after_commit(
        self, callback: Callable[[], object], failed: Callable[[TxmsgError], object] | None = None
    ) -> None:
        assert failed is not None
        failed(StoreFailed("the disk is full", recoverable=True))


class DurableTests(MemoryTestCase):
    """R35: over a virtual host that keeps things, what could not be kept is an error, and not a Deferred for ever."""

    def test_a_disk_that_fails(self) -> None:
        """A publish and a declaration."""
        queue = self.queue(self.channel(), durable=True)
        vhost = self.transport.vhost()
        vhost.journal = BrokenJournal()
        channel = self.channel()
        self.failureResultOf(channel.queue_declare(queue, durable=True), StoreFailed)
        self.patch(channel, "_publish", lambda *_: PENDING)
        self.failureResultOf(channel.publish("", queue, b"x", {"delivery_mode": 2}), StoreFailed)


class NameTests(MemoryTestCase):
    """X1: which broker a URL leads to."""

    def test_equal_names_meet_and_others_do_not(self) -> None:
        """Name and virtual host make the difference; percent-encoding is undone (kombu X1)."""
        queue = self.queue(self.channel("memory://"), b"x")
        for url in ("memory://", "memory:///", "memory:", "memory:///%2F"):
            with self.subTest(url=url):
                channel = self.channel(url)
                self.assertEqual(self.successResultOf(channel.queue_declare(queue, passive=True)).message_count, 1)
        for url in ("memory://other", "memory:///vhost", "memory://other/%2Fvhost"):
            with self.subTest(url=url):
                self.failureResultOf(self.channel(url).queue_declare(queue, passive=True), NotFound)
        self.assertEqual(self.transport.vhost("memory://other/%2Fvhost").name, "/vhost")

    def test_unusable_urls(self) -> None:
        """ConfigurationError, which does not show what might be a password."""
        for url in ("redis://", "memory://u:secret@x", "memory://x/a/b", "memory://x?secret=1", "memory://[x", 5):
            with self.subTest(url=url):
                error = self.failureResultOf(self.transport.connect(url), ConfigurationError)  # type: ignore[arg-type]
                self.assertNotIn("secret", error.getErrorMessage())

    def test_one_name_has_one_clock(self) -> None:
        """Somebody with another reactor is refused."""
        self.connect()
        self.failureResultOf(self.transport.connect("memory://", reactor=Clock()), ConfigurationError)
        self.successResultOf(self.transport.connect("memory://", reactor=self.clock))
        self.successResultOf(self.transport.connect("memory://mine", reactor=Clock()))

    def test_the_clock_of_the_first_connect(self) -> None:
        """A transport without a reactor of its own takes that one; or the installed one."""
        from twisted.internet import reactor

        transport = MemoryTransport()
        clock = Clock()
        self.assertIs(self.successResultOf(transport.connect("memory://a", reactor=clock)).reactor, clock)
        self.assertIs(self.successResultOf(transport.connect("memory://a")).reactor, clock)
        self.assertIs(self.successResultOf(transport.connect("memory://b")).reactor, reactor)

    def test_reset(self) -> None:
        """All connections are closed, everything is forgotten, no timer is left (kombu X1)."""
        connection = self.connect()
        channel = self.successResultOf(connection.channel())
        queue = self.queue(channel, b"x", arguments={"x-message-ttl": 1000, "x-expires": 1000})
        self.transport.reset()
        self.assertIsInstance(self.successResultOf(connection.when_closed()), ConnectionForced)
        self.failureResultOf(channel.get(queue), ConnectionForced)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.failureResultOf(self.channel().queue_declare(queue, passive=True), NotFound)
        self.assertIn("1 brokers", repr(self.transport))


class SemanticsTests(MemoryTestCase):
    """X4, X5: what Kombu's memory transport has not."""

    def test_time_to_live_and_dead_letters(self) -> None:
        """A message that nobody wanted in time is in the other queue, and says why (kombu X5)."""
        channel = self.channel()
        dead = self.queue(channel)
        queue = self.queue(
            channel,
            arguments={"x-message-ttl": 5000, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead},
        )
        channel.publish("", queue, b"x", {"headers": {"mine": 1}})
        self.clock.advance(4.9)
        self.assertEqual(self.depth(queue), (1, 0))
        self.clock.advance(0.2)
        self.assertEqual(self.depth(queue), (0, 0))
        headers = self.get(channel, dead).properties["headers"]
        self.assertEqual((headers["mine"], headers["x-death"][0]["reason"]), (1, "expired"))

    def test_priorities(self) -> None:
        """The highest first (kombu X5, W32)."""
        channel = self.channel()
        queue = self.queue(channel, arguments={"x-max-priority": 9})
        for priority in (1, 9, 5):
            channel.publish("", queue, b"%d" % priority, {"priority": priority})
        self.assertEqual([self.get(channel, queue).body for _ in range(3)], [b"9", b"5", b"1"])

    def test_consumer_priorities(self) -> None:
        """x-priority: the other consumer waits."""
        channel = self.channel()
        queue = self.queue(channel)
        low: list[Any] = []
        high: list[Any] = []
        channel.consume(queue, low.append)
        channel.consume(queue, high.append, arguments={"x-priority": 1})
        channel.publish("", queue, b"x")
        self.clock.advance(0)
        self.assertEqual((len(low), len(high)), (0, 1))

    def test_direct_reply_to(self) -> None:
        """Requests carry a name nobody can guess, and the reply to it comes here."""
        client, server = self.channel(), self.channel()
        queue = self.queue(server)
        replies: list[Any] = []
        tag = self.successResultOf(client.consume("amq.rabbitmq.reply-to", replies.append, no_ack=True))
        client.publish("", queue, b"question", {"reply_to": "amq.rabbitmq.reply-to", "correlation_id": "1"})
        question = self.get(server, queue)
        reply_to = question.properties["reply_to"]
        declared: Any = self.successResultOf(server.queue_declare(reply_to, passive=True))
        self.assertEqual(declared, (reply_to, 0, 1))
        server.publish("", reply_to, b"answer", {"correlation_id": "1"})
        self.clock.advance(0)
        [reply] = replies
        self.assertEqual((reply.body, reply.consumer_tag, reply.is_settled), (b"answer", tag, True))
        self.successResultOf(client.cancel(tag))
        self.failureResultOf(server.queue_declare(reply_to, passive=True), NotFound)
        late = client.publish("", queue, b"", {"reply_to": "amq.rabbitmq.reply-to", "correlation_id": "1"})
        self.failureResultOf(late, PreconditionFailed)
        self.assertFalse(client.is_open)

    def test_direct_reply_to_has_rules(self) -> None:
        """no_ack, and once on a channel; it ends with the channel."""
        self.failureResultOf(self.channel().consume("amq.rabbitmq.reply-to", print), PreconditionFailed)
        channel = self.channel()
        self.successResultOf(channel.consume("amq.rabbitmq.reply-to", print, no_ack=True))
        self.failureResultOf(channel.consume("amq.rabbitmq.reply-to", print, no_ack=True), PreconditionFailed)
        self.assertEqual(len(self.transport.vhost().direct_reply), 0)

    def test_invalid_expiration(self) -> None:
        """RabbitMQ refuses it, and so do we."""
        error = self.failureResultOf(self.channel().publish("", "q", b"", {"expiration": "1.5"}), PreconditionFailed)
        self.assertIn("invalid expiration '1.5'", error.getErrorMessage())

    def test_closes_the_connection(self) -> None:
        """What ends the connection in AMQP ends it here (kombu W4)."""
        connection = self.connect()
        channel = self.successResultOf(connection.channel())
        failure = self.failureResultOf(channel.exchange_declare("x", "no-such-type"))
        self.assertIn("unknown exchange type", failure.getErrorMessage())
        self.assertFalse(connection.is_open)


class HandingOverTests(MemoryTestCase):
    """When a consumer gets what."""

    def test_never_inside_a_call(self) -> None:
        """A delivery waits for the next turn."""
        channel = self.channel()
        queue = self.queue(channel)
        got: list[Any] = []
        channel.consume(queue, got.append)
        channel.publish("", queue, b"x")
        self.assertEqual((got, self.depth(queue)), ([], (0, 1)))
        self.clock.advance(0)
        self.assertEqual(len(got), 1)

    def test_many_take_several_turns(self) -> None:
        """Others get theirs in between."""
        channel = self.channel()
        batch = memory_channel._BATCH
        queue = self.queue(channel, *[b"x"] * (batch + 10))
        got: list[int] = []
        channel.consume(queue, lambda delivery: got.append(delivery.delivery_tag))
        self.clock.callLater(0, lambda: got.append(-1))
        self.clock.advance(0)
        self.assertEqual(len(got), batch + 11)
        self.assertEqual(got.index(-1), batch)

    def test_a_bound_for_consumers_without_one(self) -> None:
        """What is in hand is bounded even where the prefetch count is 0, also with no_ack."""
        with mock.patch.object(memory_consumer, "UNSETTLED_LIMIT", 3):
            for no_ack, expected in ((False, 3), (True, 5)):
                channel = self.channel()
                queue = self.queue(channel, *[b"x"] * 5)
                got: list[Any] = []
                channel.consume(queue, got.append, no_ack=no_ack)
                self.assertEqual(self.depth(queue)[0], 2)
                self.clock.advance(0)
                self.assertEqual(len(got), expected)

    def test_cancel_gives_back_what_was_not_seen(self) -> None:
        """To its place, so that the next one who asks gets it first."""
        channel = self.channel()
        queue = self.queue(channel, b"1", b"2", auto_delete=False)
        got: list[Any] = []
        tag = self.successResultOf(channel.consume(queue, got.append))
        self.successResultOf(channel.cancel(tag))
        self.clock.advance(0)
        self.assertEqual((got, self.depth(queue)), ([], (2, 0)))
        self.assertEqual(self.get(channel, queue).body, b"1")

    def test_cancel_with_no_ack_hands_over_the_rest(self) -> None:
        """The broker has forgotten these; `cancel` fires after the last."""
        channel = self.channel()
        queue = self.queue(channel, b"1", b"2")
        got: list[Any] = []
        tag = self.successResultOf(channel.consume(queue, got.append, no_ack=True))
        cancelled = channel.cancel(tag)
        self.assertNoResult(cancelled)
        self.clock.advance(0)
        self.successResultOf(cancelled)
        self.assertEqual([delivery.body for delivery in got], [b"1", b"2"])

    def test_recover_takes_back_what_was_not_seen(self) -> None:
        """It is delivered again with all the rest, once."""
        channel = self.channel()
        queue = self.queue(channel, b"1", b"2")
        got: list[Any] = []
        channel.consume(queue, got.append)
        self.successResultOf(channel.recover())
        self.clock.advance(0)
        self.assertEqual([(delivery.body, delivery.redelivered) for delivery in got], [(b"1", True), (b"2", True)])
        self.assertEqual(self.depth(queue), (0, 2))

    def test_nothing_is_handed_over_after_the_end(self) -> None:
        """A channel that is closed in a callback gets nothing more; all goes back."""
        channel, other = self.channel(), self.channel()
        queue = self.queue(other, b"1", b"2", b"3")
        got: list[Any] = []

        def handle(delivery: Any) -> None:
            got.append(delivery)
            channel.close()

        channel.consume(queue, handle)
        self.clock.advance(0)
        self.assertEqual((len(got), self.depth(queue)), (1, (3, 0)))

    def test_a_nack_loop_gives_others_their_turn(self) -> None:
        """A consumer that always gives back does not stop the reactor (kombu W29)."""
        channel = self.channel()
        queue = self.queue(channel, b"x")
        seen: list[int] = []

        def handle(delivery: Any) -> None:
            seen.append(delivery.delivery_tag)
            if len(seen) < 1000:
                delivery.nack()

        channel.consume(queue, handle)
        self.clock.callLater(0, lambda: seen.append(-1))
        self.clock.advance(0)
        self.assertLess(seen.index(-1), 300)

    def test_cancel_beside_a_consumer_that_always_has_something(self) -> None:
        """It waits for what is its own only (kombu W29)."""
        channel = self.channel()
        busy, queue = self.queue(channel), self.queue(channel, b"1")
        seen: list[str] = []

        def publish_more(_: MemoryDelivery) -> None:
            seen.append("busy")
            if len(seen) < 5 * memory_channel._BATCH:
                channel.publish("", busy, b"more")

        channel.consume(busy, publish_more, no_ack=True)
        for _ in range(2 * memory_channel._BATCH):
            channel.publish("", busy, b"x")
        tag = self.successResultOf(channel.consume(queue, lambda _: seen.append("handled"), no_ack=True))
        channel.cancel(tag).addCallback(lambda _: seen.append("cancelled"))
        self.clock.advance(0)
        self.assertLess(seen.index("handled"), seen.index("cancelled"))
        self.assertLess(seen.index("cancelled"), 4 * memory_channel._BATCH)

    def test_on_cancel_that_fails(self) -> None:
        """It is logged."""
        channel = self.channel()
        queue = self.queue(channel)

        def fail(reason: BaseException) -> None:
            raise ValueError(str(reason))

        channel.consume(queue, print, on_cancel=fail)
        channel.queue_delete(queue)
        self.clock.advance(0)
        [failure] = self.flushLoggedErrors(ValueError)
        self.assertIn("was cancelled by the server", failure.getErrorMessage())

    def test_multiple_with_nothing_open(self) -> None:
        """Settling what is not there is an error for `multiple`, too; a tag that is no number another one.

        kombu W25
        """
        channel = self.channel()
        self.assertRaises(AlreadySettled, channel.ack, 0, True)
        for call in (channel.ack, channel.nack):
            for multiple in (False, True):
                self.assertRaises(EncodeError, call, "1", multiple)
        self.assertRaises(EncodeError, channel.ack, [])

    def test_all_at_once(self) -> None:
        """Tag 0 with `multiple` is all there is."""
        channel = self.channel()
        queue = self.queue(channel, b"1", b"2", b"3")
        for _ in range(3):
            self.get(channel, queue)
        channel.nack(2, multiple=True, requeue=False)
        self.assertEqual(self.depth(queue), (0, 1))
        channel.ack(0, multiple=True)
        self.assertEqual(self.depth(queue), (0, 0))


class LimitTests(MemoryTestCase):
    """R36: what one program can make the process hold."""

    limits = BrokerLimits(channels=2, consumers_per_channel=2, max_message_size=1000, broker_bytes=20_000)

    def test_channels(self) -> None:
        """As many as the limit says; a closed one makes room."""
        connection = self.connect()
        first = self.successResultOf(connection.channel())
        self.successResultOf(connection.channel())
        self.failureResultOf(connection.channel(), ChannelLimitReached)
        first.close()
        self.successResultOf(connection.channel())

    def test_consumers(self) -> None:
        """One too many ends the connection, as in AMQP."""
        channel = self.channel()
        queue = self.queue(channel)
        for _ in range(2):
            self.successResultOf(channel.consume(queue, print))
        self.failureResultOf(channel.consume(queue, print), NotAllowed)

    def test_message_size(self) -> None:
        """PreconditionFailed."""
        self.successResultOf(self.channel().publish("", "q", b"x" * 1000))
        self.failureResultOf(self.channel().publish("", "q", b"x" * 1001), PreconditionFailed)

    def test_memory(self) -> None:
        """Overloaded, until there is room again; nothing was taken."""
        channel = self.channel()
        queue = self.queue(channel)
        outcomes: list[Deferred[None]] = [channel.publish("", queue, b"x" * 1000) for _ in range(100)]
        ready, _ = self.depth(queue)
        self.assertTrue(10 < ready < 20)
        for outcome in outcomes[:ready]:
            self.successResultOf(outcome)
        for outcome in outcomes[ready:]:
            self.failureResultOf(outcome, Overloaded)
        channel.queue_purge(queue)
        self.successResultOf(channel.publish("", queue, b"x"))


class CallTests(MemoryTestCase):
    """How calls fail."""

    def test_another_thread(self) -> None:
        """WrongThread, from everything that works on the model."""
        channel = self.channel()
        raised: list[type[BaseException]] = []

        def call() -> None:
            for method, arguments in (
                (channel.publish, ("", "q", b"")),
                (channel.queue_declare, ("q",)),
                (channel.ack, (1,)),
                (channel.nack, (1,)),
                (channel.close, ()),
            ):
                try:
                    method(*arguments)
                except WrongThread as error:
                    raised.append(type(error))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        self.assertEqual(raised, [WrongThread] * 5)

    def test_delivery_mode(self) -> None:
        """Only 1 and 2, as RabbitMQ has it; the broker's refusal ends the channel."""
        channel = self.channel()
        for mode in (1, 2):
            self.successResultOf(channel.publish("", "q", b"", {"delivery_mode": mode}))
        self.failureResultOf(channel.publish("", "q", b"", {"delivery_mode": 3}), PreconditionFailed)
        self.assertFalse(channel.is_open)

    def test_arguments_that_amqp_cannot_carry(self) -> None:
        """EncodeError; the channel stays open."""
        channel = self.channel()
        calls: list[Deferred[Any]] = [
            channel.queue_declare("x" * 256),
            channel.queue_declare(5),  # type: ignore[arg-type]
            channel.queue_declare("", arguments=[]),  # type: ignore[arg-type]
            channel.queue_declare("q", arguments={"x": object()}),
            channel.queue_declare("q", arguments=[1]),  # type: ignore[arg-type]
            channel.publish(None, "q", b""),  # type: ignore[arg-type]
            channel.publish("", "q", b"", 5),  # type: ignore[arg-type]
            channel.qos(-1),
            channel.qos("1"),  # type: ignore[arg-type]
        ]
        for number, call in enumerate(calls):
            with self.subTest(number=number):
                self.failureResultOf(call, EncodeError)
        self.assertTrue(channel.is_open)

    def test_waiting_for_the_end_may_be_given_up(self) -> None:
        """A cancelled `when_closed` is not fired."""
        channel = self.channel()
        waiting = channel.when_closed()
        waiting.addErrback(lambda failure: None)
        waiting.cancel()
        other = channel.when_closed()
        channel.close()
        self.assertIs(self.successResultOf(other), channel.close_reason)
