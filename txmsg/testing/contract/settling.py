"""The contract of settling: what is acked is gone, what is not comes again."""

from __future__ import annotations

from typing import Any

from txmsg.errors import AlreadySettled, StaleDelivery
from txmsg.testing.contract.case import ContractCase, needs

__all__ = ["SettlingContract"]


class SettlingContract(ContractCase):
    """Every message is settled once, and only where it came."""

    async def test_give_back(self) -> None:
        """A message that is given back comes again, as redelivered, in its place."""
        channel = await self.channel()
        queue = await self.queue(channel, b"1", b"2")
        first = await channel.get(queue)
        first.nack()
        again = await channel.get(queue)
        self.assertEqual((again.body, again.redelivered), (b"1", True))
        again.reject(requeue=True)
        again = await channel.get(queue)
        self.assertEqual(again.body, b"1")
        again.reject()
        self.assertEqual((await channel.get(queue)).body, b"2")

    async def test_recover(self) -> None:
        """All that is unsettled comes again."""
        channel = await self.channel()
        queue = await self.queue(channel, b"1", b"2")
        old = [await channel.get(queue), await channel.get(queue)]
        await channel.recover()
        again = await channel.get(queue)
        self.assertEqual((again.body, again.redelivered), (b"1", True))
        for delivery in old:
            self.assertTrue(delivery.is_settled)

    async def test_closing_gives_back(self) -> None:
        """What is unsettled when its channel closes goes back, once; settling it then is StaleDelivery."""
        connection = await self.connect()
        channel, other = await connection.channel(), await connection.channel()
        queue = await self.queue(other, b"1")
        delivery = await channel.get(queue)
        await channel.close()
        await channel.close()
        self.assertRaises(StaleDelivery, delivery.ack)
        again = await other.get(queue)
        self.assertEqual((again.body, again.redelivered), (b"1", True))
        self.assertIsNone(await other.get(queue))

    async def test_many_at_once(self) -> None:
        """`multiple` settles what came before on the channel, from whichever queue."""
        channel = await self.channel()
        one, two = await self.queue(channel, b"1", b"3"), await self.queue(channel, b"2")
        first, second, third = [await channel.get(queue) for queue in (one, two, one)]
        second.ack(multiple=True)
        self.assertEqual([each.is_settled for each in (first, second, third)], [True, True, False])
        self.assertRaises(AlreadySettled, first.ack)
        third.nack(multiple=True)
        self.assertRaises(AlreadySettled, third.reject)
        self.assertEqual((await channel.get(one)).body, b"3")
        self.assertIsNone(await channel.get(two))

    @needs("exchanges")
    async def test_it_comes_back_as_it_was(self) -> None:
        """To the queue it came from and to no other, with all its properties; redelivered, where that is known."""
        connection = await self.connect()
        channel, other = await connection.channel(), await connection.channel()
        one, two = await self.queue(other), await self.queue(other)
        exchange = self.unique("x")
        await other.exchange_declare(exchange, "fanout", auto_delete=True)
        for queue in (one, two):
            await other.queue_bind(queue, exchange)
        await other.publish(exchange, "key", b"body", self.message_properties)
        await channel.get(one)
        await channel.close()
        again = await other.get(one)
        self.assertEqual((again.body, again.exchange, again.routing_key), (b"body", exchange, "key"))
        self.assertEqual(dict(again.properties), dict(self.message_properties))
        self.assertEqual(again.redelivered, "redelivered" not in self.lacks)
        self.assertIsNotNone(await other.get(two))
        for queue in (one, two):
            self.assertIsNone(await other.get(queue))

    @needs("queue arguments")
    async def test_dead_letters(self) -> None:
        """What is refused without requeue, or outlives its time, goes to the dead-letter exchange, and says so."""
        channel = await self.channel()
        dead = await self.queue(channel)
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
        queue = await self.queue(channel, b"refused", arguments=arguments)
        (await channel.get(queue)).reject()
        await channel.publish("", queue, b"late", {"expiration": "0"})
        found: list[Any] = []
        await channel.consume(dead, found.append)
        await self.until(lambda: len(found) == 2)
        reasons = {delivery.body: delivery.properties["headers"]["x-death"][0]["reason"] for delivery in found}
        self.assertEqual(reasons, {b"refused": "rejected", b"late": "expired"})
