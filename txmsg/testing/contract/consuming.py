"""The contract of consumers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import DeferredList, ensureDeferred

from txmsg.errors import AccessRefused, AlreadySettled, ConfigurationError, ConsumerCancelled, DuplicateConsumerTag
from txmsg.testing.contract.case import ContractCase, needs

__all__ = ["ConsumingContract"]


class ConsumingContract(ContractCase):
    """Deliveries to consumers: whose, how many, in which order, until when."""

    async def test_consume(self) -> None:
        """In order, with the consumer's tag, never inside a call of ours; acked one by one."""
        channel = await self.channel()
        queue = await self.queue(channel, b"1", b"2")
        got: list[Any] = []
        tag = await channel.consume(queue, got.append)
        await channel.publish("", queue, b"3")
        await self.until(lambda: len(got) == 3)
        self.assertEqual([delivery.body for delivery in got], [b"1", b"2", b"3"])
        self.assertEqual({delivery.consumer_tag for delivery in got}, {tag})
        self.assertEqual([delivery.delivery_tag for delivery in got], [1, 2, 3])
        for delivery in got:
            delivery.ack()
            self.assertTrue(delivery.is_settled)
            self.assertRaises(AlreadySettled, delivery.ack)

    async def test_prefetch(self) -> None:
        """No more than the prefetch count is unsettled; settling makes room."""
        channel = await self.channel()
        queue = await self.queue(channel, *[b"%d" % n for n in range(5)])
        got: list[Any] = []
        await channel.qos(2)
        await channel.consume(queue, got.append)
        await self.until(lambda: len(got) == 2)
        self.assertEqual((await channel.queue_declare(queue, passive=True, auto_delete=True)).message_count, 3)
        got[1].ack(multiple=True)
        await self.until(lambda: len(got) == 4)
        got[2].nack(requeue=False)
        await self.until(lambda: len(got) == 5)
        self.assertEqual([delivery.body for delivery in got], [b"0", b"1", b"2", b"3", b"4"])

    async def test_no_ack(self) -> None:
        """Settled when handed over."""
        channel = await self.channel()
        queue = await self.queue(channel, b"1")
        got: list[Any] = []
        await channel.consume(queue, got.append, no_ack=True)
        await self.until(lambda: got)
        self.assertTrue(got[0].is_settled)
        self.assertRaises(AlreadySettled, got[0].ack)

    async def test_cancel(self) -> None:
        """Nothing comes after it; what came stays to be settled; an unknown tag is fine."""
        channel = await self.channel()
        queue = (await channel.queue_declare("")).name
        await channel.publish("", queue, b"1")
        got: list[Any] = []
        tag = await channel.consume(queue, got.append)
        await self.until(lambda: got)
        await channel.cancel(tag)
        await channel.cancel(tag)
        await channel.publish("", queue, b"2")
        self.assertEqual((await channel.get(queue)).body, b"2")
        self.assertEqual(len(got), 1)
        got[0].ack()
        await channel.queue_delete(queue)

    async def test_the_broker_cancels(self) -> None:
        """When the queue is deleted, `on_cancel` is told; not when the consumer was cancelled here."""
        channel = await self.channel()
        queue = (await channel.queue_declare("")).name
        reasons: list[Any] = []
        tag = await channel.consume(queue, print, on_cancel=reasons.append)
        await channel.cancel(tag)
        tag = await channel.consume(queue, print, on_cancel=reasons.append)
        await channel.queue_delete(queue)
        await self.until(lambda: reasons)
        [reason] = reasons
        self.assertIsInstance(reason, ConsumerCancelled)
        self.assertEqual((reason.consumer_tag, reason.initiator), (tag, "server"))

    async def test_consumer_tags(self) -> None:
        """One may be chosen, and be used once."""
        channel = await self.channel()
        queue = await self.queue(channel)
        self.assertEqual(await channel.consume(queue, print, consumer_tag="mine"), "mine")
        await self.failure(channel.consume(queue, print, consumer_tag="mine"), DuplicateConsumerTag)
        await self.failure(channel.consume(queue, None), ConfigurationError)

    async def test_callbacks(self) -> None:
        """One may be `async def`; one that fails is logged, and its delivery stays unsettled."""
        channel = await self.channel()
        queue = await self.queue(channel, b"good", b"bad", b"worse")
        seen: list[bytes] = []

        async def handle(delivery: Any) -> None:
            await self.pause()
            seen.append(delivery.body)
            if delivery.body != b"good":
                raise ValueError(delivery.body)
            delivery.ack()

        def fail_at_once(delivery: Any) -> Any:
            if delivery.body == b"worse":
                seen.append(delivery.body)
                raise ValueError(delivery.body)
            return ensureDeferred(handle(delivery))

        await channel.consume(queue, fail_at_once)
        await self.until(lambda: len(seen) == 3)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)
        await channel.close()

    async def test_two_consumers_share(self) -> None:
        """Two consumers of one queue on one channel both get their part."""
        channel = await self.channel()
        queue = await self.queue(channel)
        one: list[Any] = []
        two: list[Any] = []
        await channel.consume(queue, one.append, no_ack=True)
        await channel.consume(queue, two.append, no_ack=True)
        await DeferredList([channel.publish("", queue, b"%d" % n) for n in range(10)], fireOnOneErrback=True)
        await self.until(lambda: len(one) + len(two) == 10)
        self.assertEqual((len(one), len(two)), (5, 5))

    async def test_a_busy_queue(self) -> None:
        """It does not starve the others of a channel."""
        channel = await self.channel()
        busy, quiet = await self.queue(channel, *[b"busy"] * 50), await self.queue(channel, b"quiet")
        await channel.qos(1)
        order: list[bytes] = []

        def handle(delivery: Any) -> None:
            order.append(delivery.body)
            delivery.ack()

        await channel.consume(busy, handle)
        await channel.consume(quiet, handle)
        await self.until(lambda: len(order) == 51)
        self.assertLess(order.index(b"quiet"), 45)

    @needs("queue arguments")
    async def test_priorities(self) -> None:
        """The highest first; above the queue's maximum is the maximum."""
        channel = await self.channel()
        queue = await self.queue(channel, arguments={"x-max-priority": 9})
        for priority in (0, 9, 5, 200, None):
            properties = {} if priority is None else {"priority": priority}
            await channel.publish("", queue, b"%d" % (priority or 0), properties)
        got = [(await channel.get(queue, no_ack=True)).body for _ in range(5)]
        self.assertEqual(got, [b"9", b"200", b"5", b"0", b"0"])

    @needs("exclusive")
    async def test_exclusive_consumer(self) -> None:
        """Nobody else consumes from that queue."""
        connection = await self.connect()
        channel, other = await connection.channel(), await connection.channel()
        queue = await self.queue(channel)
        await channel.consume(queue, print, exclusive=True)
        await self.failure(other.consume(queue, print), AccessRefused)
