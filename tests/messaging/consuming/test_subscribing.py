"""Subscribing: which queues are consumed, under which tags; how it ends, and how it comes back."""

from __future__ import annotations

from typing import Any
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred, fail

from tests.messaging.over_memory import MemoryCase
from txmsg.errors import (
    AccessRefused,
    ChannelClosed,
    ConfigurationError,
    ConnectionClosed,
    ConnectionForced,
    ConsumerCancelled,
    NotBoundError,
    NotFound,
    OperationTimeout,
    PreconditionFailed,
    StaleDelivery,
)
from txmsg.messaging import Consumer, Exchange, Message, Queue


class SubscribingCase(MemoryCase):
    """A consumer whose messages are noted."""

    def setUp(self) -> None:
        super().setUp()
        self.seen: list[Message] = []

    def consumer(self, *queues: Any, **settings: Any) -> Consumer:
        settings.setdefault("on_message", self.seen.append)
        return Consumer(self.channel, list(queues), **settings)

    def bodies(self) -> list[bytes]:
        return [message.body for message in self.seen]


class ConsumeTests(SubscribingCase):
    """kombu H1 to H4, H12 to H15."""

    def test_one_queue_or_several(self) -> None:
        """kombu H2, celery C-11: bound to the channel, as copies; declared with exchange and bindings (H4)."""
        exchange = Exchange("x", "topic")
        one = Queue("one", exchange, routing_key="a.#")
        consumer = Consumer(self.channel, one, on_message=self.seen.append)
        self.assertFalse(one.is_bound)
        self.assertIs(consumer.queues[0].channel, self.channel)
        self.done(consumer.consume())
        self.done(self.channel.publish("x", "a.b", b"1"))
        self.turn()
        self.assertEqual(self.bodies(), [b"1"])
        several = self.consumer(one, Queue("two"))
        self.assertEqual([queue.name for queue in several.queues], ["one", "two"])
        self.assertEqual(len(self.consumer(Queue("same"), Queue("same")).queues), 1)

    def test_what_is_no_queue(self) -> None:
        """kombu H2: a name is none, nor is it a list of letters; refused where it is written."""
        for given, expected in (
            ("orders", r"such as Queue\('orders'\)"),
            (["orders"], "such as"),
            (5, "a int cannot be"),
        ):
            with self.assertRaisesRegex(ConfigurationError, f"give a Queue.*{expected}|{expected}.*: give a Queue"):
                Consumer(None, given)  # type: ignore[arg-type]
        error = self.failureResultOf(self.consumer().add_queue("orders"), ConfigurationError)  # type: ignore[arg-type]
        self.assertIn("Queue('orders')", str(error.value))

    def test_a_connection_or_nothing(self) -> None:
        """kombu H1: a connection stands for its default channel; without any, consume is refused until revive."""
        consumer = Consumer(self.connection, Queue("q"))
        self.assertIs(consumer.channel, self.connection.default_channel)
        self.assertIs(consumer.connection, self.connection)
        later = Consumer(None, Queue("q"), on_message=self.seen.append)
        self.assertIsNone(later.connection)
        self.failureResultOf(later.consume(), NotBoundError)
        self.done(later.revive(self.channel))
        self.assertEqual((later.is_consuming, later.queues[0].is_bound), (False, True))
        self.done(later.consume())
        self.send("q", b"1")
        self.assertEqual(self.bodies(), [b"1"])

    def test_only_what_is_not_consumed(self) -> None:
        """kombu H13, celery C-14.

        Consume is idempotent, also twice at once; add_queue (H15) declares, and does not start.
        """
        consumer = self.consumer(Queue("one"))
        first, second = consumer.consume(), consumer.consume()
        self.assertIs(self.done(first), consumer)
        self.done(second)
        [tag] = consumer.consumer_tags
        bound = self.done(consumer.add_queue(Queue("two")))
        self.assertIn("two", self.transport.vhost(self.url).queues)
        self.assertEqual((bound.is_bound, consumer.consumer_tags), (True, [tag]))
        self.assertFalse(consumer.consuming_from("two"))
        self.done(consumer.consume())
        self.assertEqual(consumer.consumer_tags[0], tag)
        self.assertEqual(len(consumer.consumer_tags), 2)
        self.assertTrue(consumer.consuming_from(bound) and consumer.consuming_from("one"))

    def test_no_auto_declare(self) -> None:
        """kombu H4: a queue that is not there is NotFound, and nothing is consumed."""
        consumer = self.consumer(Queue("missing"), auto_declare=False)
        deferred = consumer.consume()
        self.turn()
        self.failureResultOf(deferred, NotFound)
        self.assertEqual((consumer.is_consuming, consumer.consumer_tags), (False, []))
        added = self.done(consumer.add_queue(Queue("another")))
        self.assertNotIn(added.name, self.transport.vhost(self.url).queues)
        self.done(consumer.declare())
        self.assertIn(added.name, self.transport.vhost(self.url).queues)

    def test_a_declaration_that_is_refused(self) -> None:
        """PreconditionFailed, and the consumer can be used again."""
        self.done(self.channel.queue_declare("q", durable=False))
        consumer = self.consumer(Queue("q"))
        deferred = consumer.consume()
        self.turn()
        self.failureResultOf(deferred, PreconditionFailed)
        self.done(self.channel.queue_delete("q"))
        self.done(consumer.consume())
        self.send("q", b"1")
        self.assertEqual(self.bodies(), [b"1"])

    def test_one_of_them_is_refused(self) -> None:
        """Then none of those is consumed; what was consumed before is, after the channel has come back."""
        other = self.connect()
        channel = self.done(other.channel())
        self.done(channel.queue_declare("taken", durable=True))
        self.done(channel.consume("taken", print, exclusive=True))
        consumer = self.consumer(Queue("mine"))
        self.done(consumer.consume())
        self.done(consumer.add_queue(Queue("taken")))
        self.done(consumer.add_queue(Queue("more")))
        deferred = consumer.consume()
        self.turn()
        self.failureResultOf(deferred, AccessRefused)
        self.turn(2.0)
        self.assertEqual([consumer.consuming_from(name) for name in ("mine", "taken", "more")], [True, False, False])
        self.send("mine", b"1")
        self.assertEqual(self.bodies(), [b"1"])

    def test_no_ack(self) -> None:
        """kombu H3, celery C-11: of consume, else of the consumer, else of each queue."""
        cases: list[tuple[Any, Any, bool, bool]] = [
            (None, None, False, False),
            (None, None, True, True),
            (None, False, True, False),
            (None, True, False, True),
            (True, False, False, True),
            (False, True, True, False),
        ]
        for index, (given, consumers, queues, expected) in enumerate(cases):
            with self.subTest(given=given, consumers=consumers, queues=queues):
                name = f"q{index}"
                consumer = self.consumer(Queue(name, no_ack=queues), no_ack=consumers)
                self.done(consumer.consume(no_ack=given))
                self.send(name, b"1")
                message = self.seen[-1]
                self.assertEqual(message.state, "no_ack" if expected else "received")
                self.assertEqual(self.depth(name), (0, 0 if expected else 1))
                message.ack()
                self.assertEqual(bool(set(consumer.consumer_tags) & self.channel.no_ack_consumers), expected)

    def test_a_queue_that_is_added_twice(self) -> None:
        """kombu H13: what is consumed is not consumed once more, by another Queue of that name."""
        consumer = self.done(self.consumer(Queue("q")).consume())
        self.done(consumer.add_queue(Queue("q")))
        self.done(consumer.consume())
        self.assertEqual(len(consumer.consumer_tags), 1)
        self.done(consumer.flow(False))
        self.done(consumer.consume())
        self.done(consumer.flow(True))
        self.assertEqual(len(consumer.consumer_tags), 1)

    def test_a_channel_that_was_closed(self) -> None:
        """By the application: it stays closed."""
        self.done(self.channel.close())
        self.failureResultOf(self.consumer(Queue("q")).consume(), ChannelClosed)
        self.assertFalse(self.channel.is_open)

    def test_tags(self) -> None:
        """kombu H12, H29: prefix and number; distinct without one."""
        one = self.done(self.consumer(Queue("q"), Queue("r")).consume())
        two = self.done(self.consumer(Queue("q"), tag_prefix="mine-").consume())
        tags = one.consumer_tags + two.consumer_tags
        self.assertEqual(len(set(tags)), 3)
        self.assertTrue(two.consumer_tags[0].startswith("mine-"))
        self.send("q", b"1")
        self.assertIn(self.seen[0].delivery_info["consumer_tag"], tags)

    def test_prefetch(self) -> None:
        """kombu H11, H26, celery C-11: in force from the first message on, for each consumer its own."""
        self.done(self.channel.queue_declare("q", durable=True))
        self.send("q", b"1", b"2", b"3", b"4", b"5", b"6")
        self.done(self.consumer(Queue("q"), prefetch_count=2).consume())
        self.assertEqual(self.depth("q"), (4, 2))
        self.done(self.consumer(Queue("q"), prefetch_count=3).consume())
        self.assertEqual(self.depth("q"), (1, 5))
        self.seen[0].ack(multiple=True)
        self.turn()
        self.assertEqual(self.depth("q"), (0, 5))

    def test_one_round_trip(self) -> None:
        """kombu H14: qos and all consumes go out before the first reply."""
        sent: list[str] = []
        waiting: list[Deferred[Any]] = []

        def note(what: str) -> Any:
            def call(*arguments: Any, **settings: Any) -> Deferred[Any]:
                sent.append(what)
                waiting.append(Deferred())
                return waiting[-1]

            return call

        consumer = self.consumer(Queue("q"), Queue("r"), auto_declare=False, prefetch_count=1)
        with mock.patch.multiple(self.channel, qos=note("qos"), consume=note("consume")):
            deferred = consumer.consume()
            self.turn()
            self.assertEqual(sent, ["qos", "consume", "consume"])
            for each in waiting:
                each.callback(None)
        self.successResultOf(deferred)


class EndTests(SubscribingCase):
    """kombu H16 to H18, H28."""

    def test_cancel(self) -> None:
        """kombu H16: nothing more comes, what came can be settled; consume starts again."""
        consumer = self.done(self.consumer(Queue("q")).consume())
        self.send("q", b"1")
        ended = consumer.when_ended()
        self.done(consumer.cancel())
        reason = self.successResultOf(ended)
        assert isinstance(reason, ConsumerCancelled)
        self.assertEqual(reason.initiator, "client")
        self.send("q", b"2")
        self.assertEqual((self.bodies(), consumer.is_consuming, len(consumer.queues)), ([b"1"], False, 1))
        self.seen[0].ack()
        self.done(consumer.cancel())
        self.done(consumer.consume())
        self.turn()
        self.assertEqual(self.bodies(), [b"1", b"2"])

    def test_cancel_with_messages_on_their_way(self) -> None:
        """kombu H28, W36, celery C-15: nothing blows up, nothing is lost."""
        consumer = self.done(self.consumer(Queue("q")).consume())
        for body in (b"1", b"2"):
            self.successResultOf(self.channel.publish("", "q", body))
        self.done(consumer.cancel())
        ready, unsettled = self.depth("q")
        self.assertEqual(ready + unsettled, 2)
        self.assertEqual(len(self.seen), unsettled)

    def test_cancel_by_queue(self) -> None:
        """kombu H17, H18, celery C-15: by Queue or by name; it is forgotten; an unknown one is fine."""
        consumer = self.done(self.consumer(Queue("one"), Queue("two"), Queue("three")).consume())
        ended = consumer.when_ended()
        self.done(consumer.cancel_by_queue("one"))
        self.done(consumer.cancel_by_queue(Queue("two")))
        self.done(consumer.cancel_by_queue("two"))
        self.assertEqual([queue.name for queue in consumer.queues], ["three"])
        self.assertFalse(consumer.consuming_from("one") or consumer.consuming_from(Queue("two")))
        self.assertNoResult(ended)
        self.done(consumer.consume())
        self.send("one", b"1")
        self.assertEqual(self.seen, [])
        self.done(consumer.cancel_by_queue("three"))
        self.assertIsInstance(self.successResultOf(ended), ConsumerCancelled)

    def test_cancel_that_is_not_answered(self) -> None:
        """OperationTimeout: it is consumed still, and may be cancelled again."""
        consumer = self.done(self.consumer(Queue("q")).consume())
        with mock.patch.object(self.channel, "cancel", lambda tag: fail(OperationTimeout("no reply"))):
            self.failureResultOf(consumer.cancel(), OperationTimeout)
        self.assertTrue(consumer.consuming_from("q"))
        self.done(consumer.cancel())
        self.assertFalse(consumer.is_consuming)

    def test_the_broker_cancels(self) -> None:
        """A deleted queue is reported and its tag freed; the others go on; then consume makes it anew."""
        told: list[Any] = []
        consumer = self.consumer(
            Queue("one"), Queue("two"), on_cancel=lambda queue, reason: told.append((queue, reason))
        )
        self.done(consumer.consume(no_ack=True))
        ended = consumer.when_ended()
        self.done(self.channel.queue_delete("one"))
        self.turn()
        [(queue, reason)] = told
        self.assertEqual((queue.name, type(reason), len(consumer.consumer_tags)), ("one", ConsumerCancelled, 1))
        self.assertEqual(self.channel.no_ack_consumers, set(consumer.consumer_tags))
        self.assertNoResult(ended)
        self.done(self.channel.queue_delete("two"))
        self.turn()
        self.assertEqual(self.successResultOf(ended), told[1][1])
        self.done(consumer.consume())
        self.send("one", b"1")
        self.assertEqual(self.bodies(), [b"1"])

    def test_both_cancel(self) -> None:
        """The queue goes while the consumer is cancelled: that is no news, and `when_ended` says who was first."""
        told: list[Any] = []
        consumer = self.consumer(Queue("q"), on_cancel=lambda *given: told.append(given))
        self.done(consumer.consume())
        ended = consumer.when_ended()
        deleting = self.channel.queue_delete("q")
        self.done(consumer.cancel())
        self.successResultOf(deleting)
        self.assertEqual((told, getattr(self.successResultOf(ended), "initiator", None)), ([], "client"))

    def test_on_cancel_that_takes_time(self) -> None:
        """It may be a coroutine; how that fails is logged."""
        told: list[str] = []

        async def on_cancel(queue: Queue, reason: BaseException) -> None:
            told.append(queue.name)
            raise ZeroDivisionError

        self.done(self.consumer(Queue("one"), on_cancel=on_cancel).consume())
        self.done(self.channel.queue_delete("one"))
        self.turn()
        self.assertEqual((told, len(self.flushLoggedErrors(ZeroDivisionError))), (["one"], 1))

    def test_who_stops_waiting_stops_nothing(self) -> None:
        """A cancel, a close that is cancelled itself: it is cancelled, and what nobody fetched goes back."""
        answers: list[Deferred[None]] = []
        cancel = self.channel.cancel

        def slow(tag: str) -> Deferred[None]:
            answers.append(Deferred().addCallback(lambda _: cancel(tag)))
            return answers[-1]

        consumer = self.done(Consumer(self.channel, [Queue("q"), Queue("r")]).consume())
        self.send("q", b"1")
        with mock.patch.object(self.channel, "cancel", slow):
            for ending in (consumer.cancel_by_queue("r"), consumer.close()):
                ending.cancel()
                self.failureResultOf(ending, CancelledError)
            ended = consumer.when_ended()
            self.assertNoResult(ended)
            answers[0].callback(None)
            self.turn()
            answers[1].callback(None)
            self.turn()
        self.assertIsInstance(self.successResultOf(ended), ConsumerCancelled)
        self.assertEqual((consumer.is_consuming, self.depth("q")), (False, (1, 0)))

    def test_one_of_two_is_not_answered(self) -> None:
        """OperationTimeout: that one is consumed still, the other is not."""
        consumer = self.done(self.consumer(Queue("q"), Queue("r")).consume())
        first, cancel = consumer.consumer_tags[0], self.channel.cancel

        def answered(tag: str) -> Deferred[None]:
            return fail(OperationTimeout("no reply")) if tag == first else cancel(tag)

        with mock.patch.object(self.channel, "cancel", answered):
            self.failureResultOf(consumer.cancel(), OperationTimeout)
        self.assertEqual(consumer.consumer_tags, [first])

    def test_the_broker_cancels_and_nobody_listens(self) -> None:
        """Then it is logged; so is an on_cancel that fails."""
        consumer = self.consumer(Queue("one"), Queue("two"))
        self.done(consumer.consume())
        with mock.patch.object(consumer, "_log") as log:
            self.done(self.channel.queue_delete("one"))
            self.turn()
        log.warn.assert_called_once()
        consumer.on_cancel = lambda queue, reason: 1 / 0
        self.done(self.channel.queue_delete("two"))
        self.turn()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_the_connection_is_closed(self) -> None:
        """It has ended for good, and says so."""
        consumer = self.done(self.consumer(Queue("q")).consume())
        ended = consumer.when_ended()
        self.done(self.connection.close())
        self.assertIsInstance(self.successResultOf(ended), ConnectionClosed)
        self.assertFalse(consumer.is_consuming)
        given_up = consumer.when_ended()
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)


class RevivalTests(SubscribingCase):
    """kombu H22: after a loss, on a transport that does not come back by itself."""

    def test_the_connection_is_lost(self) -> None:
        """celery C-19: it consumes again by itself, with its prefetch; old deliveries are stale, and come again."""
        consumer = self.done(self.consumer(Queue("q"), prefetch_count=2).consume())
        tags = consumer.consumer_tags
        self.send("q", b"1", b"2", b"3")
        self.cut()
        self.assertRaises(StaleDelivery, self.seen[0].ack)
        self.turn(10.0)
        self.assertEqual(self.bodies(), [b"1", b"2", b"1", b"2"])
        self.assertNotEqual(consumer.consumer_tags, tags)
        self.assertEqual(self.depth("q"), (1, 2))
        self.assertRaises(StaleDelivery, self.seen[1].reject)
        for message in self.seen[2:]:
            self.assertTrue(message.redelivered)
            message.ack()
        self.turn()
        self.assertEqual(self.depth("q"), (0, 1))

    def test_the_channel_is_lost(self) -> None:
        """By a mistake of somebody else's on it; a queue that the broker named comes back."""
        consumer = self.done(self.consumer(Queue("", exclusive=True)).consume())
        name = consumer.queues[0].name
        self.failureResultOf(self.channel.queue_declare("no.such.queue", passive=True), NotFound)
        self.turn(5.0)
        self.assertTrue(consumer.is_consuming)
        self.send(consumer.queues[0].name, b"1")
        self.assertEqual((self.bodies(), consumer.queues[0].name != ""), ([b"1"], bool(name)))

    def test_lost_while_paused_and_cancelled(self) -> None:
        """What is not consumed is not consumed after a loss."""
        paused = self.done(self.consumer(Queue("q")).consume())
        cancelled = self.done(self.consumer(Queue("r")).consume())
        self.done(paused.flow(False))
        self.done(cancelled.cancel())
        self.cut()
        self.turn(5.0)
        self.send("q", b"1")
        self.send("r", b"1")
        self.assertEqual(self.seen, [])
        self.done(paused.flow(True))
        self.turn()
        self.assertEqual(self.bodies(), [b"1"])

    def test_it_is_refused(self) -> None:
        """The queue is another one now: the consumer ends, and says why."""
        consumer = self.done(self.consumer(Queue("q")).consume())
        ended = consumer.when_ended()
        self.cut()
        self.transport.vhost(self.url).delete_queue("q", owner=None)
        other = self.successResultOf(self.transport.connect(self.url, reactor=self.clock))
        self.successResultOf(self.successResultOf(other.channel()).queue_declare("q", durable=False))
        self.turn(5.0)
        self.assertIsInstance(self.successResultOf(ended), PreconditionFailed)
        self.assertFalse(consumer.is_consuming)

    def test_a_revival_that_failed(self) -> None:
        """R25: consume tries again; it is not taken for consumed."""
        consumer = self.done(self.consumer(Queue("q")).consume())
        other = self.done(self.connection.channel())
        with mock.patch.object(other, "consume", lambda *_, **__: fail(OperationTimeout("no reply"))):
            self.failureResultOf(consumer.revive(other), OperationTimeout)
            self.failureResultOf(consumer.consume(), OperationTimeout)
        self.done(consumer.consume())
        self.send("q", b"1")
        self.assertEqual((self.bodies(), len(consumer.consumer_tags)), ([b"1"], 1))

    def test_another_channel(self) -> None:
        """kombu H22, celery C-19: old tags are gone, it consumes on the new one what it consumed."""
        consumer = self.done(self.consumer(Queue("q"), Queue("r"), prefetch_count=1).consume())
        other = self.done(self.connection.channel())
        self.done(consumer.revive(other))
        self.send("q", b"1", b"2")
        self.assertEqual((self.bodies(), self.depth("q")), ([b"1"], (1, 1)))
        self.assertIs(self.seen[0].channel, other)
        self.assertEqual([queue.channel for queue in consumer.queues], [other, other])
        self.done(self.channel.close())
        self.assertTrue(consumer.is_consuming)
        self.done(other.close())
        self.assertFalse(consumer.is_consuming)

    def test_several_losses(self) -> None:
        """It comes back each time, and nothing is lost."""
        done: list[bytes] = []

        def handle(message: Message) -> None:
            done.append(message.body)
            message.ack()

        self.done(self.consumer(Queue("q"), on_message=handle).consume())
        for number in range(5):
            self.send("q", b"%d" % number)
            self.cut()
            self.turn(5.0)
        self.assertEqual(set(done), {b"%d" % number for number in range(5)})
        self.assertEqual(self.depth("q"), (0, 0))

    def test_reasons(self) -> None:
        """The loss itself ends nothing."""
        consumer = self.done(self.consumer(Queue("q")).consume())
        ended = consumer.when_ended()
        self.cut()
        self.turn(5.0)
        self.assertNoResult(ended)
        self.assertTrue(issubclass(ConnectionForced, ConnectionClosed))
