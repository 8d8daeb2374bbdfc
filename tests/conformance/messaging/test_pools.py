"""Pools over memory://, the embedded broker and RabbitMQ."""

from __future__ import annotations

from twisted.internet.defer import Deferred, gatherResults

from tests.conformance.messaging.base import MessagingCase, OverBroker, OverMemory, OverRabbitMQ
from txmsg.messaging import Queue
from txmsg.messaging.pools import Connections, Producers


class PoolCases(MessagingCase):
    """Many users of few connections, on each transport."""

    async def test_many_publishers(self) -> None:
        """Forty publish over three connections; each has its place in the line, all arrives (kombu L14, L15, L16)."""
        connections = Connections(limit=3)
        producers = Producers(connections=connections)
        pattern = self.connection()
        queue = Queue(self.name("q"), durable=False, expires=60)

        async def publish(number: int) -> None:
            async with producers[pattern].acquire(block=True, timeout=20) as producer:
                await producer.publish(number, routing_key=queue.name, declare=[queue])

        await gatherResults([Deferred.fromCoroutine(publish(number)) for number in range(40)])
        pool = connections[pattern]
        self.assertEqual((pool.in_use, pool.waiting, pattern.connected), (0, 0, False))
        self.assertTrue(1 <= pool.idle <= 3)
        await self.until_depth(queue.name, 40)
        await connections.reset()
        await producers.reset()

    async def test_survives_a_loss(self) -> None:
        """Connections that were lost while they were idle work when they are lent again (kombu L13)."""
        pool = self.connection().Pool(2)
        self.addCleanup(pool.force_close_all)
        first, second = await pool.acquire(), await pool.acquire()
        for connection in (first, second):
            await connection.connect()
            await connection.release()
        await self.cut_off(first, second)
        name = self.name("q")
        async with pool.acquire() as connection:
            producer = connection.Producer()
            await producer.publish(
                1, routing_key=name, declare=[Queue(name, durable=False, expires=60)], retry=True, timeout=20
            )
        self.assertEqual((pool.in_use, pool.idle), (0, 2))

    async def test_channels(self) -> None:
        """Channels of one connection, replaced when an error has closed one (kombu L12, L13)."""
        pool = self.connection().ChannelPool(2)
        self.addCleanup(pool.force_close_all)
        async with pool.acquire() as channel, pool.acquire() as other:
            self.assertIsNot(channel, other)
            await self.failure(channel.queue_declare(self.name("missing"), passive=True), Exception)
        async with pool.acquire() as channel, pool.acquire() as other:
            for each in (channel, other):
                await each.queue_declare(self.name("q"), exclusive=True)
        self.assertEqual(pool.in_use, 0)


class PoolsOverMemory(OverMemory, PoolCases):
    """Over memory://."""


class PoolsOverBroker(OverBroker, PoolCases):
    """Over the embedded broker."""


class PoolsOverRabbitMQ(OverRabbitMQ, PoolCases):
    """Over RabbitMQ."""
