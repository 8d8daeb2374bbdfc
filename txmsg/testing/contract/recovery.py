"""The contract of a connection that comes back by itself."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from twisted.trial.unittest import SkipTest

from txmsg import abc
from txmsg.errors import ConnectionClosed, NotSent, PublishUnconfirmed, StaleDelivery, TxmsgError
from txmsg.testing.contract.case import ContractCase, needs

__all__ = ["RecoveryContract"]


class RecoveryContract(ContractCase):
    """How a loss looks, and what there is after it."""

    def lose(self, connection: Any) -> Any:
        """Cut the connection, so that it can come back; return None, or something to wait for."""
        raise NotImplementedError

    def break_off(self) -> Any:
        """Make the broker unreachable; return None, or something to wait for.  Default: tests of that are skipped."""
        raise SkipTest("the broker of this case is always there")

    def restore(self) -> Any:
        """Undo `break_off`."""
        raise NotImplementedError

    async def losing(self, connection: Any) -> None:
        """Cut it, and wait until it is back."""
        told: list[Any] = []

        def tell(reason: Any, delay: Any) -> None:
            told.append(reason)

        connection.add_recovery_callback(tell)
        await _done(self.lose(connection))
        await self.until(lambda: told and told[-1] is None, 30)
        connection.remove_recovery_callback(tell)
        self.assertIsInstance(told[0], BaseException)

    async def test_it_is_one(self) -> None:
        """And says so."""
        connection = await self.connect()
        self.assertIsInstance(connection, abc.RecoveringMessagingConnection)
        await connection.retry()

    async def test_consumers_come_back(self) -> None:
        """On the same channel, with their tags and prefetch; what they had is delivered again, and is stale."""
        connection = await self.connect()
        channel = await connection.channel()
        queue = (await channel.queue_declare(self.unique("q"), durable=True)).name
        try:
            for body in (b"1", b"2"):
                await channel.publish("", queue, body, {"delivery_mode": 2})
            await channel.qos(1)
            got: list[Any] = []
            tag = await channel.consume(queue, got.append)
            await self.until(lambda: got)
            old = got.pop()
            await self.losing(connection)
            self.assertRaises(StaleDelivery, old.ack)
            await self.until(lambda: got)
            self.assertEqual((got[0].body, got[0].redelivered, got[0].consumer_tag), (b"1", True, tag))
            self.assertEqual(len(got), 1)
            got[0].ack()
            await self.until(lambda: len(got) == 2)
            self.assertEqual((got[1].body, got[1].redelivered), (b"2", False))
            got[1].ack()
            await channel.publish("", queue, b"3")
            await self.until(lambda: len(got) == 3)
            got[2].ack()
        finally:
            await channel.queue_delete(queue)

    @needs("exchanges", "exclusive")
    async def test_declarations_come_back(self) -> None:
        """Queues that ended with the connection, exchanges, bindings; a name that the broker gave means the new one."""
        connection = await self.connect()
        channel = await connection.channel()
        queue = (await channel.queue_declare("", exclusive=True)).name
        exchange = self.unique("x")
        await channel.exchange_declare(exchange, "topic", auto_delete=True)
        await channel.queue_bind(queue, exchange, "a.#")
        await self.losing(connection)
        await channel.publish(exchange, "a.b", b"by key")
        await channel.publish("", queue, b"by name")
        self.assertEqual([(await channel.get(queue)).body for _ in range(2)], [b"by key", b"by name"])

    async def test_a_publish_that_was_under_way(self) -> None:
        """It is confirmed, or nobody knows; and it fails with that."""
        connection = await self.connect()
        channel = await connection.channel()
        queue = await self.queue(channel)
        publishes = [channel.publish("", queue, b"%d" % n) for n in range(50)]
        lost = self.lose(connection)
        for publish in publishes:
            with suppress(PublishUnconfirmed, NotSent, ConnectionClosed):
                await publish
        await _done(lost)
        await connection.retry()
        await channel.publish("", queue, b"after")

    async def test_while_it_is_away(self) -> None:
        """Publishes are refused, declares wait; `retry` says why an attempt fails, and when one does not."""
        connection = await self.connect()
        channel = await connection.channel()
        queue = await self.queue(channel)
        told: list[tuple[Any, Any]] = []
        connection.add_recovery_callback(lambda reason, delay: told.append((reason, delay)))
        await _done(self.break_off())
        try:
            await self.until(lambda: told)
            reason, delay = told[0]
            self.assertIsInstance(reason, ConnectionClosed)
            self.assertGreaterEqual(delay, 0)
            self.assertFalse(connection.is_open or channel.is_open)
            await self.failure(channel.publish("", queue, b"x"), NotSent)
            self.assertIsInstance(await self.failure(connection.retry(), TxmsgError), Exception)
            other = channel.queue_declare(self.unique("waits"), auto_delete=True)
        finally:
            await _done(self.restore())
        await self._back(connection)
        await other
        self.assertTrue(connection.is_open)
        self.assertEqual(told[-1], (None, None))
        await channel.publish("", queue, b"x")

    async def _back(self, connection: Any) -> None:
        for _ in range(100):
            with suppress(TxmsgError):
                await connection.retry()
            if connection.is_open:
                return
            await self.pause(0.1)
        self.fail("it did not come back")

    async def test_closing_while_it_is_away(self) -> None:
        """It ends for good, at once, and whoever waits is told."""
        connection = await self.connect()
        channel = await connection.channel()
        told: list[Any] = []
        connection.add_recovery_callback(lambda reason, delay: told.append(reason))
        await _done(self.break_off())
        try:
            await self.until(lambda: told)
            ended = connection.when_closed()
            await connection.close()
            self.assertIsInstance(await ended, ConnectionClosed)
            await self.failure(connection.retry(), ConnectionClosed)
            await self.failure(channel.publish("", "q", b""), TxmsgError)
        finally:
            await _done(self.restore())


async def _done(found: Any) -> None:
    if found is not None:
        await found
