"""The end of a consumer: our cancel, the broker's, the queue's deletion, and what becomes of deliveries under way."""

from __future__ import annotations

import gc
from typing import Any

from pamqp import commands
from twisted.internet.defer import Deferred, gatherResults

from tests.conformance.base import BrokerCase, OverBroker, OverPeer, OverRabbitMQ, settle
from tests.conformance.minibroker import ignore
from tests.conformance.test_consume import iterate
from txmsg.amqp import Consumer, Delivery
from txmsg.errors import ChannelError, ConsumerCancelled


class CancelCases(BrokerCase):
    async def test_what_was_not_fetched_goes_back(self) -> None:
        """O-05, K-18, L-06, W-19, U-10: buffered deliveries are requeued, fetched ones stay to be settled."""
        channel = await self.channel()
        name = await self.queue(channel, *[b"%d" % n for n in range(10)])
        await channel.basic_qos(5)
        consumer = await channel.basic_consume(name)
        fetched = await consumer.get()
        await channel.basic_qos(5)
        await consumer.cancel()
        await self.until_depth(channel, name, 9)
        error = await self.failure(consumer.get(), ConsumerCancelled)
        self.assertEqual((error.initiator, error.consumer_tag), ("client", consumer.consumer_tag))
        self.assertIn("client", str(error))
        fetched.ack()
        rest = await self.get_all(channel, name, 9)
        self.assertEqual([d.body for d in rest], [b"%d" % n for n in range(1, 10)])
        self.assertIsNone(await channel.basic_get(name))

    async def test_in_one_breath(self) -> None:
        """24.8, R17: a subscription cancelled before the broker has confirmed it does no harm to the connection."""
        channel = await self.channel()
        name = await self.queue(channel, b"0", b"1")
        for number in range(20):
            tag = f"{name}.{number}"
            consuming = channel.basic_consume(name, consumer_tag=tag)
            await channel.basic_cancel(tag)
            self.assertFalse((await consuming).is_active)
        await self.until_depth(channel, name, 2)
        self.assertEqual(channel.consumers, {})

    async def test_no_ack_stays_readable(self) -> None:
        """O-06, K-20, 24.9, U-07: what has arrived can still be read, then get() fails; nothing is sent back."""
        channel = await self.channel()
        name = await self.queue(channel, b"0", b"1", b"2")
        consumer = await channel.basic_consume(name, no_ack=True)
        assert consumer.queue is not None
        queue = consumer.queue
        await self.until(lambda: len(queue) == 3)
        await consumer.cancel()
        self.assertEqual([(await consumer.get()).body for _ in range(3)], [b"0", b"1", b"2"])
        await self.failure(consumer.get(), ConsumerCancelled)
        await channel.basic_qos(1)
        self.assertTrue(channel.is_open)

    async def test_cancel_in_full_flow(self) -> None:
        """24.9, K-20: hundreds of messages arrive around the cancel; read plus left is all there was (kombu D15)."""
        connection = await self.connect()
        channel = await connection.channel()
        name = await self.queue(channel, *[b"%d" % n for n in range(500)])
        seen: list[bytes] = []

        def handle(delivery: Delivery) -> None:
            seen.append(delivery.body)
            delivery.ack()

        await channel.basic_qos(20)
        consumer = await channel.basic_consume(name, handle)
        await self.until(lambda: len(seen) > 50)
        await consumer.cancel()
        handled = len(seen)
        await channel.basic_qos(20)
        self.assertEqual(len(seen), handled)
        await self.until_depth(channel, name, 500 - handled)

    async def test_cancel_in_the_own_callback(self) -> None:
        """W-18, R29: a callback cancels its own consumer, then acks; nothing more is delivered to it."""
        channel = await self.channel()
        name = await self.queue(channel, *[b"x"] * 5)
        seen: list[Delivery] = []
        consumers: list[Consumer] = []

        def handle(delivery: Delivery) -> Deferred[None]:
            seen.append(delivery)
            cancelled = delivery.channel.basic_cancel(delivery.consumer_tag)
            delivery.ack()
            return cancelled

        consumers.append(await channel.basic_consume(name, handle))
        await consumers[0].when_ended()
        self.assertEqual(len(seen), 1)
        await self.until_depth(channel, name, 4)

    async def test_many_consumers_one_after_the_other(self) -> None:
        """O-09, W-53, W-60: five hundred consumers on one channel: nothing of them is kept."""
        channel = await self.channel()
        name = await self.queue(channel)
        for _ in range(500):
            await (await channel.basic_consume(name)).cancel()
        self.assertEqual(channel.consumers, {})
        gc.collect()
        kept = [each for each in gc.get_objects() if type(each) is Consumer and each.channel is channel]
        self.assertLess(len(kept), 3)

    async def test_cancel_twice_and_unknown(self) -> None:
        """K-19, 24.8: all succeed, and nothing is sent for a tag that is not known (kombu D15)."""
        channel = await self.channel()
        consumer = await channel.basic_consume(await self.queue(channel))
        first, second = consumer.cancel(), channel.basic_cancel(consumer.consumer_tag)
        await gatherResults([first, second])
        unknown = [consumer.cancel(), channel.basic_cancel(consumer), channel.basic_cancel("nobody")]
        self.assertTrue(all(deferred.called for deferred in unknown))
        await gatherResults(unknown)

    async def test_cancel_on_the_wrong_channel(self) -> None:
        """O-12: a local error, and the consumer goes on."""
        connection = await self.connect()
        channel, other = await connection.channel(), await connection.channel()
        consumer = await channel.basic_consume(await self.queue(channel))
        await self.failure(other.basic_cancel(consumer), ChannelError)
        self.assertTrue(consumer.is_active)

    async def test_the_queue_is_deleted(self) -> None:
        """O-01, O-02, K-48, K-49, F36, R25, M-03, S-22: waiting gets fail with the server's cancel; the channel stays
        open.

        kombu D14
        """
        connection = await self.connect()
        channel, deleter = await connection.channel(), await connection.channel()
        declared = await channel.queue_declare("", exclusive=True)
        by_name = await channel.basic_consume(declared.queue)
        by_default = await channel.basic_consume("")
        called: list[Delivery] = []
        with_callback = await channel.basic_consume(declared.queue, called.append)
        gets = [by_name.get(), by_default.get()]
        ended = with_callback.when_ended()
        loop = Deferred.fromCoroutine(iterate(by_name))
        await deleter.queue_delete(declared.queue)
        for get in gets:
            error = await self.failure(get, ConsumerCancelled)
            self.assertEqual(error.initiator, "server")
        self.assertIsInstance(await ended, ConsumerCancelled)
        self.assertIsInstance(await settle(loop), ConsumerCancelled)
        self.assertEqual(channel.consumers, {})
        self.assertTrue(channel.is_open)
        await channel.queue_declare(exclusive=True)

    async def test_the_own_channel_deletes_the_queue(self) -> None:
        """K-47: the same when this very channel deletes it, with deliveries unsettled."""
        channel = await self.channel()
        name = await self.queue(channel, b"1", b"2")
        consumer = await channel.basic_consume(name)
        delivery = await consumer.get()
        await channel.queue_delete(name)
        self.assertIsInstance(await consumer.when_ended(), ConsumerCancelled)
        delivery.ack()
        await channel.basic_qos(1)
        self.assertTrue(channel.is_open)

    async def test_both_sides_cancel(self) -> None:
        """O-03, F36, W-42: the queue goes while our cancel is on its way: one end, no error."""
        connection = await self.connect()
        channel, deleter = await connection.channel(), await connection.channel()
        for _ in range(10):
            name = await self.queue(channel)
            consumer = await channel.basic_consume(name)
            deleted = deleter.queue_delete(name)
            await consumer.cancel()
            await deleted
            self.assertIsInstance(await consumer.when_ended(), ConsumerCancelled)
        self.assertTrue(channel.is_open)


class CancelOverRabbitMQ(OverRabbitMQ, CancelCases):
    pass


class CancelOverBroker(OverBroker, CancelCases):
    pass


class CancelOverPeer(OverPeer, CancelCases):
    async def test_deliveries_between_cancel_and_cancel_ok(self) -> None:
        """24.9, O-07, W-29, K-20: in ack mode each is nacked with requeue; without acks it stays readable, no reject is
        sent.

        kombu D15
        """
        channel = await self.channel()
        name = await self.queue(channel)
        for no_ack in (False, True):
            consumer = await channel.basic_consume(name, no_ack=no_ack)

            def late(session: Any, number: int, method: Any) -> bool:
                server = session.channels[number]
                for body in (b"a", b"b"):
                    server.last_tag += 1
                    if not no_ack:  # noqa: B023 -- called before the loop goes on
                        queue = session.broker.queues[name]
                        from tests.conformance.minibroker import Message

                        server.unacked[server.last_tag] = (Message("", name, b"\0\0", body), queue, "")
                    deliver = commands.Basic.Deliver(method.consumer_tag, server.last_tag, False, "", name)
                    session.send_content(number, deliver, b"\0\0", body)
                return False

            self.broker.on["Basic.Cancel"] = late
            before = len(self.session.received)
            await consumer.cancel()
            await channel.basic_qos(1)
            sent = [m.name for _, m in self.session.received[before:]]
            if no_ack:
                self.assertEqual([(await consumer.get()).body for _ in range(2)], [b"a", b"b"])
                self.assertNotIn("Basic.Nack", sent)
                self.assertNotIn("Basic.Reject", sent)
            else:
                self.assertEqual(sent.count("Basic.Nack"), 2)
                self.assertEqual(await self.depth(channel, name), 2)
                await channel.queue_purge(name)
            await self.failure(consumer.get(), ConsumerCancelled)

    async def test_server_cancel_that_wants_an_answer(self) -> None:
        """O-04: without the nowait bit the client answers cancel-ok."""
        channel = await self.channel()
        consumer = await channel.basic_consume(await self.queue(channel))
        self.broker.on["Basic.CancelOk"] = ignore
        self.session.send(channel.channel_number, commands.Basic.Cancel(consumer.consumer_tag, nowait=False))
        await consumer.when_ended()
        await channel.basic_qos(1)
        self.assertEqual(self.session.last("Basic.CancelOk").consumer_tag, consumer.consumer_tag)

    async def test_server_cancel_crossing_ours(self) -> None:
        """O-03: the notice comes first, then cancel-ok: both calls end, once."""
        channel = await self.channel()
        consumer = await channel.basic_consume(await self.queue(channel))

        def cross(session: Any, number: int, method: Any) -> bool:
            session.send(number, commands.Basic.Cancel(method.consumer_tag, nowait=True))
            return False

        self.broker.on["Basic.Cancel"] = cross
        await consumer.cancel()
        self.assertIsInstance(await consumer.when_ended(), ConsumerCancelled)
        await channel.basic_qos(1)
        self.assertTrue(channel.is_open)
