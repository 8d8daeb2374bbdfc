"""The tests of txmsg.messaging.pools.groups, over memory://."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.messaging.over_memory import MemoryCase
from txmsg.errors import ConfigurationError, PoolClosed, PoolError
from txmsg.messaging import Connection, pools
from txmsg.messaging.pools import ConnectionPool, Connections, PoolGroup, ProducerPool, Producers, Resource


class GroupCase(MemoryCase):
    """The groups of the process, emptied after each test."""

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(pools.set_limit, pools.DEFAULT_LIMIT, force=True)
        self.addCleanup(pools.reset)


class GroupTests(GroupCase):
    """One pool for all connections that are made alike (kombu L16, L17)."""

    def test_by_connection(self) -> None:
        """The same parameters, the same pool (kombu L16, L17, AC13)."""
        pool = pools.connections[self.connection]
        self.assertIsInstance(pool, ConnectionPool)
        self.assertIs(pools.connections[self.connect()], pool)
        self.assertIs(pools.connections[self.connection.clone()], pool)
        self.assertIn(self.connect(), pools.connections)
        self.assertEqual((len(pools.connections), list(pools.connections.values())), (1, [pool]))

    def others(self) -> Iterator[Connection]:
        """Connections that differ in one thing each."""
        url = "amqp://user:secret@host/vhost"
        for other in ("amqp://user:secret@host/other", "amqp://user:else@host/vhost", "amqp://you:secret@host/vhost",
                      "amqp://user:secret@host:5673/vhost", "amqps://user:secret@host/vhost"):  # fmt: skip
            yield Connection(other, reactor=self.clock)
        yield Connection(url, reactor=self.clock, transport_options={"max_retries": 3})
        yield Connection(url, reactor=self.clock, heartbeat=5)
        yield Connection(f"{url};amqp://elsewhere", reactor=self.clock)

    def test_what_makes_a_difference(self) -> None:
        """Virtual host, user, password, port, TLS, options, heartbeat, alternates; not the name (kombu L17)."""
        group = Connections(limit=1)
        first = group[Connection("amqp://user:secret@host/vhost", reactor=self.clock)]
        self.assertIs(group[Connection("amqp://user:secret@host/vhost", reactor=self.clock, name="me")], first)
        found = [group[other] for other in self.others()]
        self.assertEqual(len({id(pool) for pool in [first, *found]}), 9)
        self.assertEqual([group[other] for other in self.others()], found)

    def test_no_secrets(self) -> None:
        """What it keeps its pools under tells no password."""
        group = Connections(limit=1)
        group[Connection("amqp://user:secret@host/vhost", reactor=self.clock)]
        self.assertNotIn("secret", f"{group} {list(group)} {dict(group.items())} {list(group.values())}")

    def test_producers(self) -> None:
        """Are on the connections of the other group, and share their limit (kombu L14, L16)."""
        pool = pools.producers[self.connection]
        self.assertIsInstance(pool, ProducerPool)
        self.assertIs(pool.connections, pools.connections[self.connection])
        self.assertEqual((pool.limit, pools.producers.limit), (10, 10))

        async def publish() -> None:
            async with pools.producers[self.connection].acquire(block=True) as producer:
                await producer.publish(1, routing_key="nowhere")

        self.run_async(publish())

    def test_looking_makes_none(self) -> None:
        """`in` and `get` find what is there (kombu L16)."""
        self.assertNotIn(self.connection, pools.connections)
        self.assertIsNone(pools.connections.get(self.connection))
        self.assertEqual(len(pools.connections), 0)

    def test_own_groups(self) -> None:
        """With limits of their own; producers then have connections of their own (kombu L22)."""
        connections, producers = Connections(limit=3), Producers(limit=4)
        self.assertEqual((connections[self.connection].limit, producers[self.connection].limit), (3, 4))
        self.assertIsNot(producers[self.connection].connections, connections[self.connection])
        shared = Producers(connections=connections)
        self.assertIs(shared[self.connection].connections, connections[self.connection])
        follower = Connections(limit=pools.use_global_limit)
        self.assertEqual((follower.limit, repr(pools.use_global_limit)), (10, "use_global_limit"))
        self.done(producers.reset())
        self.assertEqual(len(producers.connections), 0)
        self.done(shared.reset())
        self.assertEqual(len(connections), 1)

    def test_register_group(self) -> None:
        """A group of one's own takes part in `reset` and follows the limit; also as a decorator (kombu L21)."""

        class Numbers(Resource[int]):
            def create(self) -> int:
                return 1

        class NumberGroup(PoolGroup[Numbers]):
            def create(self, resource: Any, limit: int | None) -> Numbers:
                return Numbers(limit)

        self.assertRaises(NotImplementedError, lambda: PoolGroup[Numbers]()["x"])
        self.patch(pools.groups, "_groups", list(pools.groups._groups))
        group = pools.register_group(NumberGroup(pools.use_global_limit))
        self.assertIs(pools.register_group(group), group)
        pool = group["a key of another kind"]
        self.assertIs(group["a key of another kind"], pool)
        pools.set_limit(7)
        self.assertEqual((pool.limit, group.limit), (7, 7))
        self.done(pools.reset())
        self.assertTrue(pool.is_closed)
        self.assertEqual(len(group), 0)


class LimitTests(GroupCase):
    """The global limit (kombu L18)."""

    def test_default(self) -> None:
        """It is 10 (kombu L18)."""
        self.assertEqual((pools.get_limit(), pools.connections[self.connection].limit), (10, 10))

    def test_set_limit(self) -> None:
        """For the pools there are, without closing them, and for those to come; not for others (kombu L18)."""
        pool = pools.connections[self.connection]
        own = Connections(limit=3)
        connection = self.done(pool.acquire())
        self.done(connection.connect())
        self.assertEqual(pools.set_limit(20), 20)
        self.assertEqual((pool.limit, pools.producers[self.connection].limit, pools.get_limit()), (20, 20, 20))
        self.assertEqual(own[self.connection].limit, 3)
        self.assertEqual((connection.connected, pool.in_use), (True, 1))
        self.done(connection.release())
        pools.set_limit(5)
        self.assertEqual((pool.limit, pool.idle), (5, 1))

    def test_what_is_no_limit(self) -> None:
        """Nothing changes."""
        wrong: Any
        for wrong in (-1, True, "5"):
            self.assertRaises(ConfigurationError, pools.set_limit, wrong)
            self.assertRaises(ConfigurationError, Connections, wrong)
        self.assertEqual(pools.get_limit(), pools.DEFAULT_LIMIT)

    def test_lower_while_in_use(self) -> None:
        """Raises, and nothing has changed; unless it is forced (kombu L18)."""
        idle, busy = (
            pools.connections[Connection("memory://other", reactor=self.clock)],
            pools.connections[self.connection],
        )
        connection = self.done(busy.acquire())
        self.assertRaises(PoolError, pools.set_limit, 1)
        self.assertEqual((pools.get_limit(), idle.limit, busy.limit), (10, 10, 10))
        pools.set_limit(2, force=True)
        pools.set_limit(1, ignore_errors=True)
        self.assertEqual((pools.get_limit(), idle.limit, busy.limit, connection.is_closed), (1, 1, 1, False))

    def test_reset_after(self) -> None:
        """Closes what is in use, and goes on (kombu L18)."""
        pool = pools.connections[self.connection]
        connection = self.done(pool.acquire())
        pools.set_limit(1, reset_after=True)
        self.turn()
        self.assertEqual((connection.is_closed, pool.in_use, pool.limit), (True, 0, 1))
        self.done(pool.acquire())


class ResetTests(GroupCase):
    """`reset` (kombu L19)."""

    def test_reset(self) -> None:
        """Everything is closed, also what is in use; the groups are empty and go on (kombu L19)."""
        connection = self.done(pools.connections[self.connection].acquire())
        producer = self.done(pools.producers[self.connection].acquire())
        self.done(connection.connect())
        old: list[Any] = [pools.connections[self.connection], pools.producers[self.connection]]
        self.done(pools.reset())
        self.assertEqual((connection.connected, producer.is_closed), (False, True))
        self.assertEqual((len(pools.connections), len(pools.producers)), (0, 0))
        for pool in old:
            self.failureResultOf(pool.acquire(), PoolClosed)
        self.done(self.done(pools.producers[self.connection].acquire()).publish(1, routing_key="nowhere"))

    def test_reset_of_the_connections_alone(self) -> None:
        """Producers get pools of connections that are open."""
        self.done(pools.producers[self.connection].acquire())
        self.done(pools.connections.reset())
        self.done(self.done(pools.producers[self.connection].acquire()).publish(1, routing_key="nowhere"))
