"""The tests of txmsg.messaging.pools.producers, over memory://."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.messaging.over_memory import MemoryCase
from txmsg.errors import ConfigurationError, ConnectionLimitExceeded, PoolClosed, PoolError
from txmsg.messaging import Connection, Producer, Queue
from txmsg.messaging.pools import ConnectionPool, ProducerPool


class ProducerPoolTests(MemoryCase):
    """Producers and their connections (kombu L14)."""

    def setUp(self) -> None:
        super().setUp()
        self.connections = ConnectionPool(self.connection, 2)
        self.pool = ProducerPool(self.connections, serializer="json")

    def state(self) -> tuple[int, int, int, int]:
        """Producers in use, waiting; connections in use, idle."""
        return (self.pool.in_use, self.pool.waiting, self.connections.in_use, self.connections.idle)

    def acquired(self) -> Producer:
        """One more."""
        return self.done(self.pool.acquire())

    def test_each_has_a_connection(self) -> None:
        """Of its own; both go back together (kombu L14)."""
        a, b = self.acquired(), self.acquired()
        self.assertIsNot(a.connection, b.connection)
        self.assertEqual((a.serializer, self.state()), ("json", (2, 0, 2, 0)))
        self.done(a.release())
        self.assertEqual(self.state(), (1, 0, 1, 1))
        self.done(self.pool.release(b))
        self.assertEqual(self.state(), (0, 0, 0, 2))
        self.assertIs(self.acquired(), b)

    def test_publish(self) -> None:
        """It works, and declares once (kombu L14)."""
        queue = Queue("q")

        async def publish() -> None:
            async with self.pool.acquire(block=True) as producer:
                await producer.publish({"a": 1}, routing_key="q", declare=[queue])

        for _ in range(3):
            self.run_async(publish())
        self.assertEqual(self.done(self.channel.queue_declare("q", passive=True)).message_count, 3)
        self.assertEqual(self.state(), (0, 0, 0, 1))

    def test_one_limit(self) -> None:
        """A connection that is lent leaves one place for producers, and they wait in one line (kombu L14, L15)."""
        connection = self.done(self.connections.acquire())
        producer = self.acquired()
        self.failureResultOf(self.pool.acquire(), ConnectionLimitExceeded)
        self.failureResultOf(self.pool.acquire(), self.pool.LimitExceeded)
        waiting: list[Deferred[Any]] = [self.pool.acquire(block=True), self.connections.acquire(block=True)]
        self.assertEqual((self.pool.limit, self.state()), (2, (1, 1, 2, 0)))
        self.done(connection.release())
        self.assertIsInstance(self.done(waiting[0]), Producer)
        self.assertNoResult(waiting[1])
        self.done(producer.release())
        self.assertIsInstance(self.done(waiting[1]), Connection)
        self.assertEqual(self.state(), (1, 0, 2, 0))

    def test_release_twice(self) -> None:
        """The second one changes nothing, also when somebody else has it now (kombu L3, L14)."""

        async def use() -> None:
            async with self.pool.acquire() as producer:
                await producer.release()
                await producer.release()
                self.assertIs(self.acquired(), producer)

        self.run_async(use())
        self.assertEqual(self.state(), (1, 0, 1, 0))
        self.done(self.pool.release(Producer(self.connection)))
        self.assertEqual(self.state(), (1, 0, 1, 0))

    def test_timeout_and_cancellation(self) -> None:
        """Leave nobody in the line (kombu L2, L15)."""
        producers = [self.acquired(), self.acquired()]
        late, cancelled = self.pool.acquire(block=True, timeout=3), self.pool.acquire(block=True)
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.turn(3)
        self.failureResultOf(late, ConnectionLimitExceeded)
        self.assertEqual(self.state(), (2, 0, 2, 0))
        self.done(producers[0].release())
        self.assertEqual(self.state(), (1, 0, 1, 1))

    def test_cannot_be_made(self) -> None:
        """The connection goes back (kombu L13)."""

        def refuse(connection: Connection) -> Producer:
            raise ConfigurationError("no producers today")

        pool = ProducerPool(self.connections, Producer=refuse)
        for _ in range(5):
            self.failureResultOf(pool.acquire(), ConfigurationError)
        self.assertEqual((self.connections.in_use, pool.in_use, pool.waiting), (0, 0, 0))

    def test_subclass(self) -> None:
        """Another class of producers, with arguments (kombu L14)."""

        class Special(Producer):
            pass

        pool = ProducerPool(self.connections, "an exchange", Producer=Special, routing_key="key")
        producer = self.done(pool.acquire())
        self.assertIsInstance(producer, Special)
        self.assertEqual((producer.exchange.name, producer.routing_key), ("an exchange", "key"))

    def test_closed_by_its_user(self) -> None:
        """The producer, or its connection: another one is made (kombu L13)."""
        producer = self.acquired()
        self.done(producer.close())
        self.done(producer.release())
        other = self.acquired()
        self.assertIsNot(other, producer)
        connection = other.connection
        assert connection is not None
        self.done(connection.close())
        self.done(other.release())
        third = self.acquired()
        self.assertIsNot(third, other)
        self.assertTrue(other.is_closed)
        self.done(third.publish(1, routing_key="nowhere"))
        self.assertEqual(self.state(), (1, 0, 1, 0))

    def test_replace(self) -> None:
        """Both are thrown away (kombu L8)."""
        producer = self.acquired()
        connection = producer.connection
        assert connection is not None
        self.done(self.pool.replace(producer))
        self.done(self.pool.replace(producer))
        self.assertEqual((producer.is_closed, connection.is_closed, self.state()), (True, True, (0, 0, 0, 0)))

    def test_no_limit(self) -> None:
        """Both are closed when it is released (kombu L5)."""
        pool = ProducerPool(ConnectionPool(self.connection))
        producer = self.done(pool.acquire())
        connection = producer.connection
        assert connection is not None
        self.done(producer.release())
        self.assertTrue(producer.is_closed and connection.is_closed)

    def test_resize(self) -> None:
        """The limit is that of the connections (kombu L9)."""
        self.acquired()
        self.assertRaises(PoolError, setattr, self.pool, "limit", 1)
        self.done(self.pool.resize(5))
        self.assertEqual((self.connections.limit, self.pool.limit), (5, 5))

    def test_force_close_all(self) -> None:
        """Producers and the connections they hold; those that wait fail; the other connections stay (kombu L10)."""
        a, b = self.acquired(), self.acquired()
        connection = b.connection
        assert connection is not None
        self.done(a.release())
        other = self.done(self.connections.acquire())
        waiting = self.pool.acquire(block=True)
        self.assertIn("1 in use", repr(self.pool))
        self.done(self.pool.force_close_all())
        self.failureResultOf(waiting, PoolClosed)
        self.failureResultOf(self.pool.acquire(), RuntimeError)
        self.assertEqual((a.is_closed, b.is_closed, connection.is_closed), (True, True, True))
        self.assertFalse(other.is_closed)
        self.assertEqual((self.state(), self.pool.is_closed), ((0, 0, 1, 0), True))
        self.done(b.close())
