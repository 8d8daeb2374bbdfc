"""Consuming: through a queue, by iteration, with a callback; prefetch, tags, refusals, what ends a consumer."""

from __future__ import annotations

from typing import Any

from pamqp import commands, frame, header
from twisted.internet.defer import Deferred, gatherResults

from tests.conformance.base import BrokerCase, OverBroker, OverPeer, OverRabbitMQ, outcomes, pause, settle
from tests.conformance.minibroker import Session, ignore
from txmsg.amqp import Delivery
from txmsg.errors import (
    AccessRefused,
    AlreadySettled,
    ChannelClosed,
    ChannelWrongState,
    ConnectionClosed,
    DuplicateConsumerTag,
    EncodeError,
    NotFound,
    QueueClosed,
)


class ConsumeCases(BrokerCase):
    async def test_with_get(self) -> None:
        """K-21, W-46, X-06, M-09: messages that wait arrive in order, also those that come with consume-ok."""
        channel = await self.channel()
        bodies = [b"%d" % n for n in range(50)]
        name = await self.queue(channel, *bodies)
        consumer = await channel.basic_consume(name)
        for number, body in enumerate(bodies, 1):
            delivery = await consumer.get()
            self.assertEqual((delivery.body, delivery.delivery_tag), (body, number))
            self.assertEqual((delivery.consumer_tag, delivery.routing_key), (consumer.consumer_tag, name))
            self.assertEqual((delivery.exchange, delivery.redelivered), ("", False))
            self.assertIs(delivery.channel, channel)
            delivery.ack()
        waiting = consumer.get()
        channel.basic_publish("", name, b"late")
        (await waiting).ack()
        await channel.close()

    async def test_with_iteration(self) -> None:
        """L-11: the loop takes what comes and ends normally when the consumer is cancelled."""
        channel = await self.channel()
        name = await self.queue(channel, *[b"%d" % n for n in range(10)])
        consumer = await channel.basic_consume(name)
        seen: list[bytes] = []
        async for delivery in consumer:
            seen.append(delivery.body)
            delivery.ack()
            if len(seen) == 10:
                await consumer.cancel()
        self.assertEqual(seen, [b"%d" % n for n in range(10)])

    async def test_with_a_callback(self) -> None:
        """F-22, W-31: a plain callable, a Deferred and a coroutine; what they raise is logged and hurts nobody."""
        channel = await self.channel()
        name = await self.queue(channel, b"0", b"1", b"2", b"3")
        seen: list[bytes] = []
        done: Deferred[None] = Deferred()

        def handle(delivery: Delivery) -> Any:
            seen.append(delivery.body)
            delivery.ack()
            if delivery.body == b"0":
                raise ValueError("handler failed at once")
            if delivery.body == b"1":
                return fail_later()
            if delivery.body == b"3":
                done.callback(None)
            return None

        async def fail_later() -> None:
            await pause(0.01)
            raise KeyError("handler failed later")

        await channel.basic_consume(name, handle)
        await done
        self.assertEqual(seen, [b"0", b"1", b"2", b"3"])
        await pause(0.05)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertTrue(channel.is_open)

    async def test_a_callback_consumer_has_no_queue(self) -> None:
        """K-21: get() and iteration say so."""
        channel = await self.channel()
        consumer = await channel.basic_consume(await self.queue(channel), lambda delivery: None)
        self.assertIsNone(consumer.queue)
        await self.failure(consumer.get(), ChannelWrongState)
        with self.assertRaises(ChannelWrongState):
            consumer.__aiter__()

    async def test_prefetch_bounds_what_is_delivered(self) -> None:
        """K-36, R24: not more than prefetch_count unsettled; settling brings the next (kombu D20, W18)."""
        channel = await self.channel()
        name = await self.queue(channel, *[b"%d" % n for n in range(10)])
        await channel.basic_qos(3)
        consumer = await channel.basic_consume(name)
        first = [await consumer.get() for _ in range(3)]
        await channel.basic_qos(3)  # a round trip: what was to come has come
        await pause(0.1)
        assert consumer.queue is not None
        self.assertEqual(len(consumer.queue), 0)
        first[0].ack()
        self.assertEqual((await consumer.get()).body, b"3")
        await pause(0.05)
        self.assertEqual(len(consumer.queue), 0)

    async def test_a_default_prefetch_is_set(self) -> None:
        """R24: unlimited prefetch only if asked for by name; basic_qos(0) asks for it."""
        connection = await self.connect(default_prefetch_count=4)
        publisher = await connection.channel()
        name = await self.queue(publisher, *[b"x"] * 10)
        limited = await connection.channel()
        consumer = await limited.basic_consume(name)
        await consumer.get()
        await limited.basic_qos(4)
        await pause(0.1)
        assert consumer.queue is not None
        self.assertEqual(len(consumer.queue), 3)
        await limited.close()
        unlimited = await connection.channel()
        await unlimited.basic_qos(0)
        other = await unlimited.basic_consume(name)
        await gatherResults([other.get() for _ in range(10)])

    async def test_two_consumers_on_a_channel(self) -> None:
        """W-93, W-52, K-23: each message goes to its own consumer; generated tags are unique (kombu W37)."""
        connection = await self.connect()
        channel, other = await connection.channel(), await connection.channel()
        one, two = await self.queue(channel, b"one"), await self.queue(channel, b"two")
        first, second = await gatherResults([channel.basic_consume(one), channel.basic_consume(two)])
        third = await other.basic_consume(two)
        self.assertEqual(len({first.consumer_tag, second.consumer_tag, third.consumer_tag}), 3)
        self.assertEqual((await first.get()).body, b"one")
        self.assertEqual((await second.get()).body, b"two")
        self.assertEqual(set(channel.consumers), {first.consumer_tag, second.consumer_tag})

    async def test_own_tags(self) -> None:
        """K-24, S-21: the tag asked for is used; one in use is refused without a byte sent, also while cancelling.

        kombu D13
        """
        channel = await self.channel()
        name = await self.queue(channel)
        consumer = await channel.basic_consume(name, consumer_tag="mine é")
        self.assertEqual(consumer.consumer_tag, "mine é")
        await self.failure(channel.basic_consume(name, consumer_tag="mine é"), DuplicateConsumerTag)
        cancelled = consumer.cancel()
        await self.failure(channel.basic_consume(name, consumer_tag="mine é"), DuplicateConsumerTag)
        await cancelled
        again = await channel.basic_consume(name, consumer_tag="mine é")
        self.assertTrue(again.is_active)

    async def test_a_refused_consume_leaves_its_tag_free(self) -> None:
        """K-05, K-24: after an EncodeError nothing of the consumer is left (kombu D13)."""
        channel = await self.channel()
        name = await self.queue(channel)
        wrong = channel.basic_consume(name, consumer_tag="t", arguments={"x": object()})
        await self.failure(wrong, EncodeError)
        self.assertEqual(channel.consumers, {})
        self.assertTrue((await channel.basic_consume(name, consumer_tag="t")).is_active)

    async def test_consume_a_missing_queue(self) -> None:
        """K-25, K-26, W-01, peers 7: the Deferred fails with NotFound within a round trip."""
        channel = await self.channel()
        error = await self.failure(channel.basic_consume(self.name("missing")), NotFound)
        self.assertIs(await channel.closed, error)
        self.assertEqual(channel.consumers, {})

    async def test_exclusive_consumer(self) -> None:
        """K-25: a second consumer is refused with AccessRefused (kombu D13)."""
        connection = await self.connect()
        channel = await connection.channel()
        name = await self.queue(channel)
        await channel.basic_consume(name, exclusive=True)
        other = await connection.channel()
        await self.failure(other.basic_consume(name, exclusive=True), AccessRefused)

    async def test_nowait(self) -> None:
        """M-07: the consumer is there at once and works."""
        channel = await self.channel()
        name = await self.queue(channel, b"1")
        started = channel.basic_consume(name, nowait=True)
        self.assertTrue(started.called)
        consumer = await started
        (await consumer.get()).ack()

    async def test_cancel_a_get(self) -> None:
        """L-10, peers 3: cancelling a waiting get loses no message."""
        channel = await self.channel()
        name = await self.queue(channel)
        consumer = await channel.basic_consume(name)
        gone, kept = consumer.get(), consumer.get()
        gone.cancel()
        await settle(gone)
        channel.basic_publish("", name, b"1")
        self.assertEqual((await kept).body, b"1")

    async def test_no_ack_with_a_bound(self) -> None:
        """O-06, I-11, L-12: reading stops above the high-water mark and goes on as the queue is emptied."""
        connection = await self.connect(read_high_water_messages=20)
        publisher = await self.channel()
        name = self.name("q")
        await publisher.queue_declare(name, auto_delete=True)
        await publisher.confirm_select()
        count = 5000
        body = bytes(1000)
        await gatherResults([publisher.basic_publish("", name, body) for _ in range(count)])
        channel = await connection.channel()
        consumer = await channel.basic_consume(name, no_ack=True)
        assert consumer.queue is not None
        await self.until(lambda: connection.is_reading_paused)
        await pause(0.2)
        held = len(consumer.queue)
        # What the kernel and one read have given (64 KiB) is in; nothing more comes.
        self.assertLess(held, 300)
        await pause(0.1)
        self.assertEqual(len(consumer.queue), held)
        for _ in range(count):
            delivery = await consumer.get()
            self.assertTrue(delivery.is_settled)
        self.assertFalse(connection.is_reading_paused)

    async def test_a_paused_consumer_can_be_closed(self) -> None:
        """R30, I-11: close() works although a full no_ack consumer has stopped the reading."""
        connection = await self.connect(read_high_water_messages=5, close_timeout=3.0)
        publisher = await self.channel()
        name = self.name("q")
        await publisher.queue_declare(name, auto_delete=True)
        for _ in range(2000):
            publisher.basic_publish("", name, bytes(1000))
        channel = await connection.channel()
        await channel.basic_consume(name, no_ack=True)
        await self.until(lambda: connection.is_reading_paused)
        started = self.now()
        await connection.close()
        self.assertLess(self.now() - started, 2.5)

    async def test_a_paused_consumer_can_be_cancelled(self) -> None:
        """O-06, I-11: cancel() of a full no_ack consumer is answered though nobody reads; what came stays readable."""
        connection = await self.connect(read_high_water_messages=5, operation_timeout=5.0)
        publisher = await self.channel()
        name = self.name("q")
        await publisher.queue_declare(name)
        for _ in range(2000):
            publisher.basic_publish("", name, bytes(1000))
        await self.until_depth(publisher, name, 2000)
        channel = await connection.channel()
        consumer = await channel.basic_consume(name, no_ack=True)
        await self.until(lambda: connection.is_reading_paused)
        await consumer.cancel()
        assert consumer.queue is not None
        self.assertEqual(len(consumer.queue) + await self.depth(publisher, name), 2000)
        await consumer.get()
        await publisher.queue_delete(name)

    async def test_the_end_of_the_channel_reaches_waiting_gets(self) -> None:
        """L-04, L-07, peers 11: gets fail oldest first with the channel's reason, and so does the iterator."""
        channel = await self.channel()
        consumer = await channel.basic_consume(await self.queue(channel))
        gets: list[Deferred[Any]] = [consumer.get() for _ in range(3)]
        seen = outcomes(gets)
        ended = consumer.when_ended()
        loop = Deferred.fromCoroutine(iterate(consumer))
        error = await self.failure(channel.queue_declare(self.name("missing"), passive=True), NotFound)
        self.assertIs(await ended, error)
        self.assertEqual(seen, [(0, error), (1, error), (2, error)])
        self.assertIs(await settle(loop), error)
        assert consumer.queue is not None
        self.assertIs(consumer.queue.closed, error)
        self.assertFalse(consumer.is_active)

    async def test_the_end_of_the_connection_reaches_every_consumer(self) -> None:
        """F-21, K-10: the reason of the connection, in all of them."""
        connection = await self.connect()
        channels = await gatherResults([connection.channel() for _ in range(2)])
        consumers = [await c.basic_consume(await self.queue(c)) for c in channels]
        gets = [consumer.get() for consumer in consumers]
        reason = await connection.close()
        self.assertIsInstance(reason, ConnectionClosed)
        for get, consumer in zip(gets, consumers, strict=True):
            error = await self.failure(get, ConnectionClosed, ChannelClosed)
            self.assertEqual(error.initiator, "client")
            self.assertIs(await consumer.when_ended(), error)

    async def test_the_consumer_queue_may_be_closed_by_the_user(self) -> None:
        """L-04, L-05: deliveries that still come harm nobody; the channel and the next consumer work."""
        channel = await self.channel()
        name = await self.queue(channel)
        consumer = await channel.basic_consume(name)
        assert consumer.queue is not None
        waiting = consumer.get()
        consumer.queue.close()
        await self.failure(waiting, QueueClosed)
        channel.basic_publish("", name, b"1")
        await channel.basic_qos(0)
        await consumer.cancel()
        self.assertTrue(channel.is_open)


async def iterate(consumer: Any) -> None:
    async for _ in consumer:
        pass


class ConsumeServerCases(ConsumeCases):
    async def test_priority_argument(self) -> None:
        """W-45: x-priority reaches the broker: the consumer with the higher one is served first."""
        channel = await self.channel()
        name = await self.queue(channel)
        low = await channel.basic_consume(name)
        high = await channel.basic_consume(name, arguments={"x-priority": 10})
        for _ in range(3):
            channel.basic_publish("", name, b"x")
        for _ in range(3):
            (await high.get()).ack()
        assert low.queue is not None
        self.assertEqual(len(low.queue), 0)


class ConsumeOverRabbitMQ(OverRabbitMQ, ConsumeServerCases):
    pass


class ConsumeOverBroker(OverBroker, ConsumeServerCases):
    pass


class ConsumeOverPeer(OverPeer, ConsumeCases):
    async def test_ending_it_all_in_the_middle_of_a_chunk(self) -> None:
        """R29, K-11: twenty deliveries in one chunk; the third one's callback ends the connection or channel."""
        endings: list[Any] = [
            lambda channel: channel.connection.abort(),
            lambda channel: channel.connection.close(),
            lambda channel: channel.close(),
        ]
        for end in endings:
            channel = await self.channel()
            name = await self.queue(channel)
            seen: list[Delivery] = []

            def handle(delivery: Delivery, seen: list[Delivery] = seen, end: Any = end) -> None:
                seen.append(delivery)
                if len(seen) == 3:
                    end(delivery.channel)

            await channel.basic_consume(name, handle, consumer_tag="t")
            deliver = [frame.marshal(commands.Basic.Deliver("t", tag, False, "", name), 1) for tag in range(1, 21)]
            content = frame.marshal(header.ContentHeader(0, 0), 1)
            self.session.write(b"".join(each + content for each in deliver))
            await channel.when_closed()
            self.assertEqual(len(seen), 3)

    async def test_a_delivery_tag_that_comes_twice(self) -> None:
        """F35: the broker's fault: both are handed over, the second settlement is refused here, nothing breaks."""
        channel = await self.channel()
        name = await self.queue(channel)
        consumer = await channel.basic_consume(name, consumer_tag="t")
        self.broker.on["Basic.Ack"] = ignore
        for _ in range(2):
            self.session.send_content(1, commands.Basic.Deliver("t", 7, True, "", name), b"\0\0", b"x")
        first, second = await consumer.get(), await consumer.get()
        self.assertTrue(first.redelivered and second.redelivered)
        first.ack()
        self.assertRaises(AlreadySettled, second.ack)
        await channel.basic_qos(1)
        self.assertEqual(self.session.names().count("Basic.Ack"), 1)

    async def test_reply_for_another_queue_name(self) -> None:
        """M-26: declare-ok belongs to the call by its place, whatever name it carries."""
        channel = await self.channel()

        def other(session: Session, number: int, method: Any) -> bool:
            session.send(number, commands.Queue.DeclareOk("another name", 3, 1))
            return True

        self.broker.on["Queue.Declare"] = other
        declared = await channel.queue_declare("asked for")
        self.assertEqual((declared.queue, declared.message_count), ("another name", 3))

    async def test_delivery_for_an_unknown_consumer(self) -> None:
        """M-19, F35: it is given back, and the channel goes on."""
        channel = await self.channel()
        name = await self.queue(channel)
        self.broker.on["Basic.Nack"] = ignore
        deliver = commands.Basic.Deliver("nobody", 1, False, "", name)
        self.session.send_content(channel.channel_number, deliver, b"\0\0", b"x")
        await channel.basic_qos(1)
        await self.until(lambda: "Basic.Nack" in self.session.names())
        nack = self.session.last("Basic.Nack")
        self.assertEqual((nack.delivery_tag, nack.multiple, nack.requeue), (1, False, True))
        self.assertTrue(channel.is_open)
