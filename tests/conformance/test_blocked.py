"""connection.blocked: alarms, what waits meanwhile, and the bounds of that."""

from __future__ import annotations

from typing import Any

from pamqp import commands
from twisted.internet.defer import Deferred, gatherResults

from tests.conformance.base import BrokerCase, OverBroker, OverPeer, OverRabbitMQ, outcomes, pause, settle
from tests.conformance.minibroker import ignore
from txmsg.errors import ConnectionBlockedTimeout, NotSent, OperationTimeout, Overloaded


class BlockedOverPeer(OverPeer, BrokerCase):
    def block(self, reason: str = "low on memory") -> None:
        """The broker blocks the connection."""
        self.session.send(0, commands.Connection.Blocked(reason))

    def unblock(self) -> None:
        """The broker takes publishes again."""
        self.session.send(0, commands.Connection.Unblocked())

    async def test_notices(self) -> None:
        """I-01, I-02, R16, peers 21, W-50: state, reason and callbacks; a failing callback harms nobody."""
        connection = await self.connect()
        seen: list[Any] = []

        def fails(*reason: str) -> None:
            raise ValueError("callback")

        for add, note in [
            (connection.blocked.add_blocked_callback, lambda reason: seen.append(reason)),
            (connection.blocked.add_unblocked_callback, lambda: seen.append(None)),
        ]:
            add(fails)  # type: ignore[operator]
            add(note)  # type: ignore[operator]
        self.assertFalse(connection.is_blocked)
        self.block()
        await self.until(lambda: connection.is_blocked)
        self.assertEqual((seen, connection.blocked.reason), (["low on memory"], "low on memory"))
        self.assertIn("blocked", repr(connection))
        self.unblock()
        await self.until(lambda: not connection.is_blocked)
        self.assertEqual((seen, connection.blocked.reason), (["low on memory", None], None))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    async def test_publishes_wait_in_order(self) -> None:
        """I-06, R4, R6: held while blocked, on several channels, then written in order; calls behind them too."""
        connection = await self.connect()
        channels = await gatherResults([connection.channel() for _ in range(2)])
        names = [await self.queue(channel) for channel in channels]
        await channels[0].confirm_select()
        self.block()
        await self.until(lambda: connection.is_blocked)
        published: list[Deferred[Any]] = [
            channel.basic_publish("", name, b"%d" % n)
            for n in range(10)
            for channel, name in zip(channels, names, strict=True)
        ]
        behind = channels[0].queue_declare(names[0], passive=True)
        before = channels[1].basic_qos(7)
        await pause(0.05)
        self.assertFalse(behind.called or any(deferred.called for deferred in published))
        self.assertNotIn("Basic.Publish", self.session.names())
        self.unblock()
        results = await gatherResults(published)
        self.assertEqual(results[::2], list(range(1, 11)))
        self.assertEqual(results[1::2], [None] * 10)
        self.assertEqual((await behind).message_count, 10)
        await before
        for channel, name in zip(channels, names, strict=True):
            got = await self.get_all(channel, name, 10)
            self.assertEqual([d.body for d in got], [b"%d" % n for n in range(10)])

    async def test_the_outbox_is_bounded(self) -> None:
        """R6, peers 20: beyond its bound in messages or bytes a publish fails at once with Overloaded."""
        connection = await self.connect(outbox_max_messages=5, outbox_max_bytes=100_000)
        channel = await connection.channel()
        name = await self.queue(channel)
        self.block()
        await self.until(lambda: connection.is_blocked)
        held = [channel.basic_publish("", name, b"x") for _ in range(5)]
        error = await self.failure(channel.basic_publish("", name, b"x"), Overloaded)
        self.assertTrue(error.recoverable)
        held[0].cancel()
        await settle(held[0])
        self.unblock()
        await gatherResults(held[1:])
        await self.until_depth(channel, name, 4)
        self.block()
        await self.until(lambda: connection.is_blocked)
        big = channel.basic_publish("", name, bytes(60_000))
        await self.failure(channel.basic_publish("", name, bytes(60_000)), Overloaded)
        self.unblock()
        await big

    async def test_a_publish_that_is_held_too_long(self) -> None:
        """R2, R16, peers 59: NotSent after the time limit: nothing of it has left."""
        connection = await self.connect(operation_timeout=0.3, confirm_timeout=0.3)
        plain, confirming = await gatherResults([connection.channel() for _ in range(2)])
        await confirming.confirm_select()
        self.block()
        await self.until(lambda: connection.is_blocked)
        for channel in (plain, confirming):
            error = await self.failure(channel.basic_publish("", "q", b"x"), NotSent)
            self.assertIn("low on memory", str(error))
        self.unblock()
        await plain.basic_qos(1)
        self.assertNotIn("Basic.Publish", self.session.names())

    async def test_a_call_that_times_out_says_blocked(self) -> None:
        """R16, I-03: OperationTimeout with blocked=True."""
        connection = await self.connect(operation_timeout=0.2)
        channel = await connection.channel()
        self.block()
        await self.until(lambda: connection.is_blocked)
        self.broker.on["Basic.Qos"] = ignore
        error = await self.failure(channel.basic_qos(1), OperationTimeout)
        self.assertTrue(error.blocked)
        self.assertIn("blocked", str(error))

    async def test_blocked_connection_timeout(self) -> None:
        """I-04, B-14, S-14, U-03: starts at blocked, not again at a second one, is cancelled at unblocked."""
        connection = await self.connect(blocked_connection_timeout=0.4)
        channel = await connection.channel()
        self.block()
        await self.until(lambda: connection.is_blocked)
        self.unblock()
        await pause(0.5)
        self.assertTrue(connection.is_open)
        started = self.now()
        self.block()
        await pause(0.2)
        self.block("low on disk")
        held = channel.basic_publish("", "q", b"x")
        reason = await connection.closed
        self.assertIsInstance(reason, ConnectionBlockedTimeout)
        self.assertLess(self.now() - started, 0.6)
        error = await self.failure(held, NotSent)
        self.assertIs(error.cause, reason)

    async def test_zero_is_a_limit_too(self) -> None:
        """B-14: blocked_connection_timeout=0 ends the connection at once."""
        connection = await self.connect(blocked_connection_timeout=0)
        self.block()
        self.assertIsInstance(await connection.closed, ConnectionBlockedTimeout)

    async def test_close_while_blocked(self) -> None:
        """R30, 0.6: the broker answers nothing while it blocks: close ends within close_timeout all the same."""
        connection = await self.connect(close_timeout=0.5)
        channel = await connection.channel()
        self.block()
        await self.until(lambda: connection.is_blocked)
        held = channel.basic_publish("", "q", b"x")
        self.session.is_deaf = True
        started = self.now()
        await connection.close()
        self.assertLess(self.now() - started, 1.0)
        await self.failure(held, NotSent)

    async def test_a_broker_that_stops_reading(self) -> None:
        """R6, peers 20, F51: the kernel's buffers fill: publishes wait, the outbox refuses the rest."""
        connection = await self.connect(outbox_max_messages=50, close_timeout=0.5)
        channel = await connection.channel()
        self.session.transport.pauseProducing()
        published: list[Deferred[Any]] = [channel.basic_publish("", "q", bytes(100_000)) for _ in range(400)]
        seen = outcomes(published)
        await pause(0.1)
        waiting = [d for d in published if not d.called]
        overloaded = [value for _, value in seen if isinstance(value, Overloaded)]
        self.assertGreaterEqual(len(overloaded), 100)
        self.assertGreater(len(waiting), 10)
        self.assertLess(len(connection.transport._tempDataBuffer), 100)  # type: ignore[union-attr]
        self.session.transport.resumeProducing()
        await gatherResults(waiting)
        self.assertTrue(connection.is_open)


class AlarmCases(BrokerCase):
    async def test_memory_alarm(self) -> None:
        """I-01 to I-03, R16, F37: a real alarm: blocked after the first publish, unblocked when it clears."""
        connection = await self.connect()
        channel = await connection.channel()
        await channel.confirm_select()
        name = await self.queue(channel)
        alarm = self.node.alarm("memory")
        await self.in_thread(alarm.__enter__)
        try:
            # A publish can slip in between the alarm and the moment when RabbitMQ has told all its connections.
            published = [channel.basic_publish("", name, b"1")]
            for _ in range(100):
                await pause(0.05)
                if connection.is_blocked:
                    break
                if published[-1].called:
                    published.append(channel.basic_publish("", name, b"1"))
            self.assertTrue(connection.is_blocked)
            first = published[-1]
            self.assertIn("memory", connection.blocked.reason or "")
            second = channel.basic_publish("", name, b"2")
            declared = channel.queue_declare(name, passive=True)
            await pause(0.2)
            self.assertEqual([d.called for d in (first, second, declared)], [False] * 3)
        finally:
            await self.in_thread(alarm.__exit__, None, None, None)
        sent = len(published)
        self.assertEqual(await gatherResults([first, second]), [sent, sent + 1])
        await declared
        self.assertFalse(connection.is_blocked)

    async def test_close_under_an_alarm(self) -> None:
        """R30, 0.6: close() of a blocked connection ends within its limit."""
        connection = await self.connect(close_timeout=1.0)
        channel = await connection.channel()
        alarm = self.node.alarm("disk")
        await self.in_thread(alarm.__enter__)
        try:
            for _ in range(100):  # see above
                await channel.basic_publish("", "q", b"1")
                await pause(0.05)
                if connection.is_blocked:
                    break
            self.assertTrue(connection.is_blocked)
            started = self.now()
            await connection.close()
            self.assertLess(self.now() - started, 2.0)
        finally:
            await self.in_thread(alarm.__exit__, None, None, None)


class BlockedOverRabbitMQ(OverRabbitMQ, AlarmCases):
    pass


class BlockedOverBroker(OverBroker, AlarmCases):
    pass
