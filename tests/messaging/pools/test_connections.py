"""The tests of txmsg.messaging.pools.connections, over memory://."""

from __future__ import annotations

from tests.messaging.over_memory import MemoryCase
from txmsg.errors import (
    ChannelLimitExceeded,
    ConfigurationError,
    ConnectionLimitExceeded,
    LimitExceeded,
    NotFound,
    PoolClosed,
)
from txmsg.messaging.pools import ChannelPool, ConnectionPool, Connections, Producers


class ConnectionPoolTests(MemoryCase):
    """Pools of connections (kombu L6, L12, L13)."""

    def setUp(self) -> None:
        super().setUp()
        self.pool = self.connection.Pool(2)

    def test_what_is_no_connection(self) -> None:
        """A URL, say, is refused where it is written (kombu L12, L16)."""
        with self.assertRaisesRegex(ConfigurationError, "like a Connection, not like a str"):
            ConnectionPool("memory://", 2)  # type: ignore[arg-type]
        for group in (Connections(limit=2), Producers(limit=2)):
            with self.assertRaises(ConfigurationError):
                group["memory://"]

    def test_nothing_is_opened(self) -> None:
        """Acquiring connects nothing; what is lent is another connection to the same place (kombu L6)."""
        self.assertIsInstance(self.pool, ConnectionPool)
        connection = self.done(self.pool.acquire())
        self.assertIsNot(connection, self.connection)
        self.assertEqual(connection.as_uri(), self.connection.as_uri())
        self.assertFalse(connection.connected)
        self.done(connection.connect())
        self.assertTrue(connection.connected)

    def test_limit(self) -> None:
        """The error is the pool's own, and a LimitExceeded (kombu L12)."""
        a, b = self.done(self.pool.acquire()), self.done(self.pool.acquire())
        error = self.failureResultOf(self.pool.acquire(), ConnectionLimitExceeded).value
        self.assertIsInstance(error, LimitExceeded)
        self.assertIn("all 2 connections", str(error))
        waiting = self.pool.acquire(block=True, timeout=5)
        self.done(b.release())
        self.assertIs(self.done(waiting), b)
        self.assertEqual(self.pool.in_use, 2)
        del a

    def test_release_keeps_it_open(self) -> None:
        """`release()` brings it back as it is, and twice is once; `async with connection` does the same (kombu L3)."""
        connection = self.done(self.pool.acquire())
        self.done(connection.connect())
        self.done(connection.release())
        self.done(connection.release())
        self.assertEqual((connection.connected, self.pool.idle), (True, 1))

        async def use() -> None:
            async with await self.pool.acquire() as again:
                self.assertIs(again, connection)

        self.run_async(use())
        self.assertEqual((connection.connected, self.pool.idle), (True, 1))

    def test_closed_by_its_user(self) -> None:
        """It is replaced (kombu L13)."""
        connection = self.done(self.pool.acquire())
        self.done(connection.connect())
        self.done(connection.close())
        self.done(connection.release())
        other = self.done(self.pool.acquire())
        self.assertIsNot(other, connection)
        self.done(other.connect())

    def test_lost(self) -> None:
        """One that was lost while it was idle, or lent, works when it is used next (kombu B27, L13)."""
        connection = self.done(self.pool.acquire())
        for is_lent in (True, False):
            self.done(connection.connect())
            if not is_lent:
                connection.release()
            self.cut()
            self.turn()
            self.assertFalse(connection.connected)
            if is_lent:
                connection.release()
            connection = self.done(self.pool.acquire())
            self.done(connection.default_channel.queue_declare("q"))
        self.assertEqual(self.pool.in_use, 1)

    def test_force_close_all(self) -> None:
        """All are closed (kombu L10, L11)."""
        a, b = self.done(self.pool.acquire()), self.done(self.pool.acquire())
        self.done(a.connect())
        self.done(b.connect())
        b.release()
        self.done(self.pool.force_close_all())
        self.assertFalse(a.connected or b.connected)
        self.failureResultOf(self.pool.acquire(), PoolClosed)
        self.assertIsNone(a.lender)

    def test_no_limit(self) -> None:
        """Closed when it is released (kombu L5)."""
        pool = self.connection.Pool()
        connection = self.done(pool.acquire())
        self.done(connection.connect())
        self.done(connection.release())
        self.assertTrue(connection.is_closed)


class ChannelPoolTests(MemoryCase):
    """Pools of channels (kombu L12, L13)."""

    def setUp(self) -> None:
        super().setUp()
        self.pool = self.connection.ChannelPool(2)

    def test_open_channels(self) -> None:
        """They are lent open, and stay so (kombu L12)."""
        self.assertIsInstance(self.pool, ChannelPool)
        a, b = self.done(self.pool.acquire()), self.done(self.pool.acquire())
        self.assertTrue(a.is_open and b.is_open)
        self.assertIsNot(a, b)
        self.failureResultOf(self.pool.acquire(), ChannelLimitExceeded)
        self.done(a.release())
        self.assertTrue(a.is_open)
        self.assertIs(self.done(self.pool.acquire()), a)

    def test_ended(self) -> None:
        """One that an error has closed, that its user closed, or that went with the connection, is replaced (L13)."""
        channel = self.done(self.pool.acquire())
        self.done(channel.close())
        channel.release()
        other = self.done(self.pool.acquire())
        self.assertIsNot(other, channel)
        missing = other.queue_declare("not there", passive=True)
        self.turn()
        self.failureResultOf(missing, NotFound)
        other.release()
        third = self.done(self.pool.acquire())
        self.done(third.queue_declare("q"))
        third.release()
        self.cut()
        self.turn()
        self.done(self.done(self.pool.acquire()).queue_declare("q"))
        self.assertEqual((self.pool.in_use, self.pool.idle), (1, 0))

    def test_cannot_connect(self) -> None:
        """The places are free again (kombu L13)."""
        self.done(self.connection.close())
        for _ in range(5):
            acquiring = self.pool.acquire()
            self.turn()
            self.failureResultOf(acquiring)
        self.assertEqual(self.pool.in_use, 0)

    def test_force_close_all(self) -> None:
        """The channels are closed, the connection is not (kombu L10)."""
        channel = self.done(self.pool.acquire())
        self.done(self.pool.force_close_all())
        self.assertFalse(channel.is_open)
        self.assertTrue(self.connection.connected)
