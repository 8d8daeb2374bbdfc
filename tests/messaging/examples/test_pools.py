"""Pools, and groups of them."""

from __future__ import annotations

from typing import Any

from tests.conformance.messaging.base import MessagingCase, OverMemory
from txmsg.errors import ChannelLimitExceeded, ConnectionLimitExceeded, LimitExceeded
from txmsg.messaging import Connection, Queue, pools
from txmsg.messaging.pools import Connections, PoolGroup, Producers


class PoolExamples(OverMemory, MessagingCase):
    """Over ``memory://``; the groups of the process are left as they were."""

    def setUp(self) -> None:
        """Remember the limit."""
        super().setUp()
        self.addCleanup(pools.set_limit, pools.get_limit(), force=True)
        self.addCleanup(pools.reset)

    async def test_limits(self) -> None:
        """Example 27: two of two are lent; the third is refused until one is back.  Channels alike."""
        connection = self.connection()
        cases: list[tuple[Any, type[LimitExceeded]]] = [
            (connection.Pool(2), ConnectionLimitExceeded),
            (connection.ChannelPool(2), ChannelLimitExceeded),
        ]
        for pool, error in cases:
            first = await pool.acquire()
            await pool.acquire()
            refused = await self.failure(pool.acquire(), LimitExceeded)
            self.assertIsInstance(refused, error)
            await pool.release(first)
            self.assertIs(await pool.acquire(), first)
            await pool.force_close_all()

    async def test_groups(self) -> None:
        """Example 19: connections that are made alike share a pool; two brokers have two."""
        one, same, other = Connection(self.url()), Connection(self.url()), Connection(self.url() + "-other")
        self.assertIs(pools.connections[one], pools.connections[same])
        self.assertIsNot(pools.connections[one], pools.connections[other])
        async with (
            pools.connections[one].acquire(block=True) as first,
            pools.connections[other].acquire(block=True) as second,
        ):
            await first.connect()
            await second.connect()
            self.assertNotEqual(first.as_uri(), second.as_uri())

    async def test_a_producer_of_the_pool(self) -> None:
        """Example 20: a pooled producer publishes, compressed."""
        connection = self.connection()
        async with pools.producers[connection].acquire(block=True) as producer:
            await producer.publish(
                {"hello": "world"}, routing_key="q", serializer="json", compression="zlib", declare=[Queue("q")]
            )
        message = await Queue("q")(connection).get(no_ack=True)
        assert message is not None
        self.assertEqual((message.payload, message.headers["compression"]), ({"hello": "world"}, "application/x-gzip"))

    async def test_set_limit(self) -> None:
        """Example 21: the limit of all pools; groups of one's own, with their own limit or with that one."""
        self.assertEqual(pools.set_limit(5), 5)
        self.assertEqual(pools.connections[self.connection()].limit, 5)
        own, following = Connections(limit=2), Producers(limit=pools.use_global_limit)
        self.assertEqual((own[self.connection()].limit, following.limit), (2, 5))
        pools.set_limit(7)
        self.assertEqual((own[self.connection()].limit, following.limit), (2, 7))

    async def test_a_group_of_ones_own(self) -> None:
        """Example 21: a group of another kind of pool."""

        class Channels(PoolGroup):  # type: ignore[type-arg]
            def create(self, resource: Connection, limit: int | None) -> object:
                return resource.ChannelPool(limit)

        group, connection = Channels(limit=1), self.connection()
        async with group[connection].acquire(block=True) as channel:
            self.assertIs(channel.connection, connection)
        await group.reset()

    async def test_exchange_by_name(self) -> None:
        """Example 47: the pools of the process, and publishing to an exchange that is only named."""
        from txmsg.messaging import Exchange

        connection = self.connection()
        queue = Queue("name", Exchange("name"), routing_key="name")(connection)
        await queue.declare()
        async with pools.producers[connection].acquire(block=True, timeout=5) as producer:
            await producer.publish({"a": 1}, exchange="name", routing_key="name")
        message = await queue.get(no_ack=True)
        assert message is not None
        self.assertEqual(message.payload, {"a": 1})
