"""Consumer and Message over real brokers: values in and out, settling, limits, and losses in the middle."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from tests.conformance.messaging.base import MessagingCase, OverBroker, OverMemory, OverRabbitMQ, reactor
from txmsg.errors import (
    AccessRefused,
    ConfigurationError,
    ConsumerCancelled,
    ContentDisallowed,
    DecodeError,
    MessageStateError,
    NotFound,
    StaleDelivery,
    TxmsgError,
)
from txmsg.messaging import Channel, Consumer, Exchange, Message, Queue, drain_consumer, itermessages

JSON = {"content_type": "application/json", "content_encoding": "utf-8"}


class ConsumerCase(MessagingCase):
    """A connection, a channel, and a queue of the case's own."""

    async def start(self) -> Queue:
        self.client = self.connection()
        self.channel: Channel = await self.client.channel()
        return Queue(self.name("q")[-200:], durable=True, expires=60.0)

    async def send(self, queue: Queue, *bodies: bytes, **properties: Any) -> None:
        """Publish bodies, as JSON unless `properties` say otherwise."""
        given = properties or JSON
        await gatherResults([self.channel.publish("", queue.name, body, given) for body in bodies])


class ConsumerCases(ConsumerCase):
    """What every broker does."""

    async def test_callbacks(self) -> None:
        """kombu H1, H5, H12, H16, I3 to I7, I10: values come, are settled in each way, and nothing after cancel."""
        queue = await self.start()
        seen: list[tuple[Any, Message]] = []

        async def handle(body: Any, message: Message) -> None:
            await deferLater(reactor, 0)
            seen.append((body, message))
            if body == "twice" and not message.redelivered:
                message.requeue()
            elif body == "no":
                message.reject()
            else:
                message.ack()
            self.assertRaises(MessageStateError, message.ack)

        consumer = Consumer(
            self.channel,
            Queue(queue.name, Exchange("amq.topic", "topic"), routing_key="a.#", durable=True, expires=60.0),
            callbacks=[handle],
            tag_prefix="mine-",
            prefetch_count=10,
        )
        await consumer.consume()
        for body in (b'"yes"', b'"twice"', b'"no"', b"[1, 2.5, null]"):
            await self.channel.publish("amq.topic", "a.b", body, JSON)
        await self.until(lambda: len(seen) == 5)
        await consumer.when_idle()
        self.assertEqual(
            sorted(map(str, (body for body, _ in seen))), ["[1, 2.5, None]", "no", "twice", "twice", "yes"]
        )
        message = seen[0][1]
        [tag] = consumer.consumer_tags
        self.assertTrue(tag.startswith("mine-"))
        self.assertEqual(
            message.delivery_info,
            {
                "exchange": "amq.topic",
                "routing_key": "a.b",
                "redelivered": False,
                "consumer_tag": tag,
                "delivery_tag": message.delivery_tag,
            },
        )
        await consumer.cancel()
        await self.channel.publish("amq.topic", "a.b", b"1", JSON)
        await self.until_depth(queue.name, 1)
        self.assertEqual(len(seen), 5)

    async def test_bad_messages(self) -> None:
        """kombu H8, H10, H27: they come to on_decode_error, and the next ones flow."""
        queue = await self.start()
        errors: list[type[Exception]] = []
        seen: list[Any] = []

        def refuse(message: Message, error: Exception) -> None:
            errors.append(type(error))
            message.reject()

        def handle(body: Any, message: Message) -> None:
            seen.append(body)
            message.ack()

        consumer = Consumer(self.channel, queue, callbacks=[handle], on_decode_error=refuse, prefetch_count=1)
        await consumer.consume()
        headers = {"compression": "application/x-gzip"}
        await self.send(queue, b"not JSON", b"")
        await self.send(queue, b"broken", headers=headers, **JSON)
        await self.send(queue, b"\x80\x04.", content_type="application/x-python-serialize")
        await self.send(queue, zlib.compress(b'{"a": 1}'), headers=headers, **JSON)
        await self.send(queue, b"", content_type="text/plain")
        await self.channel.publish("", queue.name, b"\x00")
        await self.until(lambda: len(seen) == 3)
        self.assertEqual(seen, [{"a": 1}, "", b"\x00"])
        self.assertEqual(errors, [DecodeError, DecodeError, DecodeError, ContentDisallowed])
        await consumer.cancel()
        await self.until_depth(queue.name, 0)

    async def test_given_back(self) -> None:
        """kombu I15, I16: a compressed message that was opened and requeued comes as it was, and as redelivered."""
        queue = await self.start()
        seen: list[tuple[Any, bool]] = []

        def handle(body: Any, message: Message) -> None:
            seen.append((body, message.redelivered))
            if len(seen) < 3:
                message.headers.clear()
                message.requeue()
            else:
                message.ack()

        await Consumer(self.channel, queue, callbacks=[handle]).consume()
        await self.send(queue, zlib.compress(b'"x"'), headers={"compression": "application/x-gzip"}, **JSON)
        await self.until(lambda: len(seen) == 3)
        self.assertEqual(seen, [("x", False), ("x", True), ("x", True)])

    async def test_no_ack(self) -> None:
        """kombu H3, I12: ack does nothing, and the channel lives on."""
        queue = await self.start()
        seen: list[Message] = []
        await Consumer(self.channel, queue, no_ack=True, on_message=seen.append).consume()
        await self.send(queue, b"1", b"2")
        await self.until(lambda: len(seen) == 2)
        for message in seen:
            message.ack()
            self.assertTrue(message.acknowledged)
        await self.send(queue, b"3")
        await self.until(lambda: len(seen) == 3)

    async def test_multiple(self) -> None:
        """kombu I4: settles all earlier ones, here too."""
        queue = await self.start()
        seen: list[Message] = []
        consumer = await Consumer(self.channel, queue, on_message=seen.append, prefetch_count=3).consume()
        await self.send(queue, b"1", b"2", b"3", b"4")
        await self.until(lambda: len(seen) == 3)
        seen[1].ack(multiple=True)
        self.assertTrue(seen[0].acknowledged)
        self.assertFalse(seen[2].acknowledged)
        self.assertRaises(MessageStateError, seen[0].ack)
        await self.until(lambda: len(seen) == 4)
        await consumer.cancel()
        seen[2].ack()
        seen[3].ack()
        await self.channel.close()
        await self.until_depth(queue.name, 0)

    async def test_two_queues_and_two_channels(self) -> None:
        """kombu H2, H13 to H18, H25, H26: each has its limit; cancel_by_queue ends one of them."""
        queue = await self.start()
        other = Queue(queue.name + ".2", durable=True, expires=60.0)
        second = await self.client.channel()
        one: list[Message] = []
        two: list[Message] = []
        first = await Consumer(self.channel, [queue, other], on_message=one.append, prefetch_count=1).consume()
        await Consumer(second, other, on_message=two.append, prefetch_count=2).consume()
        await self.send(queue, b"1", b"1")
        await self.send(other, b"2", b"2", b"2", b"2")
        await self.until(lambda: len(one) == 2 and len(two) == 2)
        await first.cancel_by_queue(other.name)
        self.assertEqual((first.consuming_from(other), first.consuming_from(queue)), (False, True))
        for message in [*one, *two]:
            message.ack()
        await self.until(lambda: len(two) == 3 and len(one) == 3)
        self.assertEqual(one[-1].delivery_info["routing_key"], queue.name)

    async def test_what_would_end_the_connection(self) -> None:
        """kombu H19 to H21: refused here, and flow(False) holds messages back without the broker's flow."""
        queue = await self.start()
        seen: list[Any] = []
        consumer = await Consumer(self.channel, queue, on_message=seen.append).consume()
        await self.failure(consumer.qos(prefetch_size=1), ConfigurationError)
        await self.failure(consumer.recover(requeue=False), ConfigurationError)
        await consumer.flow(False)
        await self.send(queue, b"1")
        await self.until_depth(queue.name, 1)
        await consumer.flow(True)
        await self.until(lambda: len(seen) == 1)
        await consumer.recover()
        await self.until(lambda: len(seen) == 2)
        self.assertTrue(seen[1].redelivered)
        seen[1].ack()
        await consumer.flow(False)
        await self.send(queue, b"2", b"3")
        self.assertEqual(await consumer.purge(), 2)

    async def test_refused(self) -> None:
        """kombu H4, H13: a queue that is not there, or is somebody else's; the consumer can be used after that."""
        queue = await self.start()
        await self.failure(Consumer(self.channel, queue, auto_declare=False, on_message=print).consume(), NotFound)
        owner = await self.connection().channel()
        await queue.bind(owner).declare()
        await owner.consume(queue.name, lambda delivery: None, exclusive=True, consumer_tag="c")
        seen: list[Any] = []
        consumer = Consumer(self.channel, queue, on_message=seen.append)
        await self.failure(consumer.consume(), AccessRefused)
        await owner.cancel("c")
        await consumer.consume()
        await self.send(queue, b"1")
        await self.until(lambda: len(seen) == 1)

    async def test_the_queue_is_deleted(self) -> None:
        """kombu H17: reported, and the tag is free; on_cancel and when_ended know it."""
        queue = await self.start()
        told: list[Any] = []
        consumer = Consumer(self.channel, queue, on_message=print, on_cancel=lambda *given: told.append(given))
        await consumer.consume()
        ended = consumer.when_ended()
        await queue.bind(self.channel).delete()
        reason = await ended
        assert isinstance(reason, ConsumerCancelled)
        self.assertEqual((reason.initiator, told[0][0].name, consumer.is_consuming), ("server", queue.name, False))

    async def test_somebody_else_deletes_the_queue(self) -> None:
        """kombu H22: where connections come back by themselves, the queue does, too; elsewhere it is reported."""
        queue = await self.start()
        told: list[Any] = []
        seen: list[Any] = []
        consumer = Consumer(self.channel, queue, on_message=seen.append, on_cancel=lambda *given: told.append(given))
        await consumer.consume()
        other = await self.connection().channel()
        await other.queue_delete(queue.name)
        if not self.recovers:
            await self.until(lambda: told)
            await consumer.consume()
        for _ in range(200):
            await self.send(queue, b"1")
            if seen:
                break
            await self.pause(0.05)
        self.assertEqual((len(seen) > 0, len(told)), (True, 0 if self.recovers else 1))

    async def test_consume_in_on_cancel(self) -> None:
        """R25: what a program does that is for every transport: the queue comes back, and is consumed."""
        queue = await self.start()
        seen: list[Any] = []

        async def again(queue: Queue, reason: BaseException) -> None:
            await consumer.consume()

        consumer = Consumer(self.channel, queue, on_message=seen.append, on_cancel=again)
        await consumer.consume()
        await (await self.connection().channel()).queue_delete(queue.name)
        for _ in range(200):
            await self.send(queue, b"1")
            await self.pause(0.02)
            if seen:
                break
        self.assertEqual((len(seen) > 0, len(consumer.consumer_tags)), (True, 1))

    async def test_iteration(self) -> None:
        """kombu O5, O6: ``async for``, itermessages, drain_consumer; what was not taken is in the queue."""
        queue = await self.start()
        await queue.bind(self.channel).declare()
        await self.send(queue, *[b"%d" % number for number in range(20)])
        found = []
        async with Consumer(self.channel, queue, prefetch_count=10) as consumer:
            async for message in consumer:
                found.append(message.payload)
                message.ack()
                if len(found) == 5:
                    break
        async for body, message in itermessages(self.client, None, queue, limit=5, no_ack=True):
            found.append(body)
            message.ack()
        async for body, message in drain_consumer(Consumer(self.channel, queue), limit=None, timeout=0.3):
            found.append(body)
            message.ack()
        self.assertEqual(found, list(range(20)))
        await self.until_depth(queue.name, 0)

    async def test_the_connection_is_cut(self) -> None:
        """kombu H22: it goes on, nothing is lost, and what is stale says so."""
        queue = await self.start()
        held: list[Message] = []
        done: dict[Any, int] = {}

        def handle(body: Any, message: Message) -> None:
            if body == "held" and not held:
                held.append(message)
                return
            done[body] = done.get(body, 0) + 1
            message.ack()

        consumer = await Consumer(self.channel, queue, callbacks=[handle], prefetch_count=5).consume()
        ended = consumer.when_ended()
        await self.send(queue, b'"held"')
        await self.until(lambda: held)
        await self.cut()
        await self.until(lambda: done.get("held") == 1)
        self.assertRaises(StaleDelivery, held[0].ack)
        self.assertFalse(held[0].acknowledged)
        await self.send(queue, *[b"%d" % number for number in range(20)])
        await self.until(lambda: len(done) == 21)
        self.assertFalse(ended.called)
        await consumer.cancel()
        await self.until_depth(queue.name, 0)


class RestartCases(ConsumerCase):
    """The broker goes in the middle."""

    async def test_the_broker_is_restarted(self) -> None:
        """kombu H22: under load; all that was confirmed is handled, and the consumer goes on."""
        queue = await self.start()
        handled: set[Any] = set()
        confirmed: set[int] = set()

        def handle(body: Any, message: Message) -> None:
            handled.add(body)
            message.ack()

        consumer = await Consumer(self.channel, queue, callbacks=[handle], prefetch_count=20).consume()
        publisher = await self.client.channel()

        async def publish() -> None:
            for number in range(1_000):
                while number not in confirmed:
                    try:
                        await publisher.publish("", queue.name, b"%d" % number, {**JSON, "delivery_mode": 2})
                        confirmed.add(number)
                    except TxmsgError as error:
                        self.assertTrue(error.recoverable, error)
                        await self.pause(0.05)

        publishing = Deferred.fromCoroutine(publish())
        await self.until(lambda: len(handled) >= 100, 30)
        await self.restart()
        await self.until(lambda: publishing.called and len(handled) == 1_000, 60)
        await publishing
        self.assertEqual(handled, set(range(1_000)))
        await consumer.cancel()
        await self.until_depth(queue.name, 0)


class AwayCases(ConsumerCase):
    """There is no broker for a while."""

    async def test_cancelled_while_away(self) -> None:
        """kombu H16, H23: cancelling waits for nobody, and the consumer does not come back with the connection."""
        queue = await self.start()
        seen: list[Message] = []
        cancelled = await Consumer(self.channel, queue, on_message=seen.append).consume()
        other = Queue(queue.name + ".2", durable=True, expires=60.0)
        going_on = await Consumer(self.channel, other, on_message=seen.append).consume()
        lost: list[Any] = []
        self.client.add_recovery_callback(lambda reason, delay: lost.append(reason))
        await self.embedded.stop()  # type: ignore[attr-defined]
        await self.until(lambda: lost)
        await cancelled.cancel()
        self.assertFalse(cancelled.is_consuming)
        await self.restart()
        await self.until(lambda: None in lost)
        await self.send(queue, b"1")
        await self.send(other, b"2")
        await self.until(lambda: seen)
        self.assertEqual([message.body for message in seen], [b"2"])
        self.assertTrue(going_on.is_consuming)
        await self.until_depth(queue.name, 1)


class AwayFromBroker(OverBroker, AwayCases):
    """amqp:// to the embedded broker."""

    durable = True


class ConsumerOverMemory(OverMemory, ConsumerCases):
    """memory://"""


class ConsumerOverBroker(OverBroker, ConsumerCases):
    """amqp:// to the embedded broker."""


class ConsumerOverRabbitMQ(OverRabbitMQ, ConsumerCases):
    """amqp:// to RabbitMQ."""


class RestartOverBroker(OverBroker, RestartCases):
    """amqp:// to the embedded broker, with its data on disk."""

    timeout = 120
    durable = True


@pytest.mark.long
class RestartOverRabbitMQ(OverRabbitMQ, RestartCases):
    """amqp:// to RabbitMQ."""

    timeout = 120
