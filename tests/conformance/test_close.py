"""Closing: in every state, twice, from inside callbacks, against a peer that never answers; abort (R28 to R30)."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from tests.conformance.base import BrokerCase, OverBroker, OverPeer, OverRabbitMQ, pause, settle
from tests.conformance.minibroker import Session, finish, ignore
from txmsg.amqp import AMQPProtocol, Consumer, Delivery, connect
from txmsg.errors import ChannelClosed, ConnectionClosed, NotFound, StaleDelivery


class CloseCases(BrokerCase):
    async def test_close(self) -> None:
        """F-11, F-14, J-08, J-09, J-13, S-13, M-04, W-54: fires with our own reason once the socket is gone."""
        connection = await self.connect()
        closed = connection.closed
        self.assertFalse(closed.called)
        closing = connection.close()
        self.assertTrue(connection.is_closing)
        reason = await closing
        assert isinstance(reason, ConnectionClosed)
        self.assertEqual((reason.reply_code, reason.reply_text), (200, "Normal shutdown"))
        self.assertEqual(reason.initiator, "client")
        self.assertTrue(connection.is_closed)
        self.assertIs(await closed, reason)
        self.assertIs(connection.close_reason, reason)
        self.assertFalse(connection.is_open or connection.is_closing)

    async def test_twice_and_later(self) -> None:
        """R29, J-13: the same result each time, before and after."""
        connection = await self.connect()
        results = await gatherResults(
            [connection.close(), connection.close(reply_text="again"), connection.when_closed()]
        )
        self.assertEqual(len({id(result) for result in results}), 1)
        self.assertIs(await connection.close(), results[0])

    async def test_with_channels_in_every_state(self) -> None:
        """F-15, W-14, W-79, R28, F-12, W-68: open, opening, closing, closed, with calls under way: all of them end,
        typed.
        """
        connection = await self.connect()
        open_channel, closing, closed = await gatherResults([connection.channel() for _ in range(3)])
        await closed.close()
        name = await self.queue(open_channel)
        consumer = await open_channel.basic_consume(name)
        await open_channel.confirm_select()
        waiting: list[Deferred[Any]] = [
            closing.close(),
            connection.channel(),
            open_channel.queue_declare(name, passive=True),
            open_channel.basic_consume(name),
            open_channel.basic_get(name),
            open_channel.basic_publish("", name, b"x"),
            consumer.get(),
            consumer.when_ended(),
            open_channel.when_closed(),
            consumer.cancel(),
        ]
        await connection.close()
        for number, deferred in enumerate(waiting):
            self.assertTrue(deferred.called, f"{number} still waits")
            await settle(deferred)

    async def test_from_inside_callbacks(self) -> None:
        """R29, F-22: close() in a delivery callback, in a reply, in an errback, in `closed` itself."""

        async def in_delivery(connection: Any, channel: Any) -> None:
            name = await self.queue(channel, b"x", b"y")
            await channel.basic_consume(name, lambda delivery: (connection.close(), None)[1])

        async def in_reply(connection: Any, channel: Any) -> None:
            channel.basic_qos(1).addCallback(lambda _: connection.close())

        async def in_errback(connection: Any, channel: Any) -> None:
            channel.queue_declare(self.name("missing"), passive=True).addErrback(lambda _: connection.close())

        async def in_channel_closed(connection: Any, channel: Any) -> None:
            channel.closed.addCallback(lambda reason: (connection.close(), reason)[1])
            channel.close()

        async def in_closed(connection: Any, channel: Any) -> None:
            connection.closed.addCallback(
                lambda reason: (
                    (connection.close(), connection.channel(), reason)[2]
                    if connection.channel().addErrback(lambda _: None)
                    else reason
                )
            )
            connection.close()

        for situation in (in_delivery, in_reply, in_errback, in_channel_closed, in_closed):
            connection = await self.connect()
            channel = await connection.channel()
            await situation(connection, channel)
            reason = await connection.when_closed()
            self.assertEqual(getattr(reason, "initiator", None), "client", situation.__name__)
        self.flushLoggedErrors(ConnectionClosed)

    async def test_abort(self) -> None:
        """H-03, M-04: at once, with the reason given; whoever waits gets it; unsettled messages go back."""
        connection = await self.connect()
        channel = await connection.channel()
        keeper = await self.channel()
        name = self.name("q")
        await keeper.queue_declare(name)
        keeper.basic_publish("", name, b"x")
        await self.until_depth(keeper, name, 1)
        delivery = await channel.basic_get(name)
        assert delivery is not None
        call = channel.basic_get(name)
        mine = ValueError("enough")
        connection.abort(mine)
        self.assertTrue(call.called)
        self.assertIs(await settle(call), mine)
        self.assertIs(await connection.closed, mine)
        connection.abort()
        self.assertIs(await connection.close(), mine)
        self.assertRaises(StaleDelivery, delivery.ack)
        await self.until_depth(keeper, name, 1)
        await keeper.queue_delete(name)

    async def test_many_connections(self) -> None:
        """R31, R28, W-56: fifty connections opened and closed: nothing is left behind."""
        for _ in range(5):
            connections = await gatherResults([Deferred.fromCoroutine(self.connect()) for _ in range(10)])
            channels = await gatherResults([connection.channel() for connection in connections])
            await gatherResults([channel.queue_declare(exclusive=True) for channel in channels])
            await gatherResults([connection.close() for connection in connections])

    async def test_nothing_keeps_a_connection_that_is_over(self) -> None:
        """R31: after the end a connection, its channels and its socket are garbage, however it ended."""
        endings: list[Callable[[AMQPProtocol], object]] = [AMQPProtocol.close, AMQPProtocol.abort]
        kept: list[weakref.ref[Any]] = []
        for end in endings * 10:
            connection = await connect(self.parameters())
            channel = await connection.channel()
            await channel.confirm_select()
            name = await self.queue(channel)
            await channel.basic_consume(name, lambda delivery: None)
            published = channel.basic_publish("", name, b"x")
            kept += [weakref.ref(connection), weakref.ref(channel)]
            end(connection)
            await connection.when_closed()
            await settle(published)
        del connection, channel, published
        await pause(0.01)
        gc.collect()
        self.assertLess(len([ref for ref in kept if ref() is not None]), 4)

    async def test_acks_and_publishes_before_close_are_sent(self) -> None:
        """W-09, R30: what was called before close() has its effect."""
        connection = await self.connect()
        channel = await connection.channel()
        keeper = await self.channel()
        name = self.name("q")
        await keeper.queue_declare(name)
        for n in range(100):
            channel.basic_publish("", name, b"%d" % n)
        await connection.close()
        await self.until_depth(keeper, name, 100)
        await keeper.queue_delete(name)


class CloseOverRabbitMQ(OverRabbitMQ, CloseCases):
    pass


class CloseOverBroker(OverBroker, CloseCases):
    pass


class CloseOverPeer(OverPeer, CloseCases):
    async def test_the_peer_never_answers(self) -> None:
        """R30, F22: connection.close without an answer: the socket is aborted after close_timeout."""
        for stop in ("deaf", "silent"):
            connection = await self.connect(close_timeout=0.4)
            channel = await connection.channel()
            if stop == "deaf":
                self.session.transport.pauseProducing()
            else:
                self.broker.on["Connection.Close"] = ignore
            waiting = channel.when_closed()
            started = self.now()
            reason = await connection.close()
            self.assertTrue(0.3 < self.now() - started < 1.0, self.now() - started)
            self.assertEqual(getattr(reason, "initiator", None), "client")
            self.assertIsInstance(await waiting, (ChannelClosed, ConnectionClosed))
            self.broker.on.clear()
            if stop == "deaf":
                self.session.transport.resumeProducing()

    async def test_close_ok_but_no_end_of_the_socket(self) -> None:
        """R30, F22: the peer answers but leaves the socket open: we close it."""
        from pamqp import commands

        connection = await self.connect()

        def answer(session: Any, number: int, method: Any) -> bool:
            session.send(0, commands.Connection.CloseOk())
            return True

        self.broker.on["Connection.Close"] = answer
        started = self.now()
        await connection.close()
        self.assertLess(self.now() - started, 2.0)
        await self.session.gone

    async def test_a_channel_close_without_an_answer(self) -> None:
        """R30: the channel counts as closed after close_timeout; its number is not given out again."""
        connection = await self.connect(close_timeout=0.3)
        channel = await connection.channel()
        self.broker.on["Channel.Close"] = ignore
        reason = await channel.close()
        self.assertEqual(getattr(reason, "initiator", None), "client")
        self.broker.on.clear()
        self.assertEqual((await connection.channel()).channel_number, 2)

    async def test_unconfirmed_publishes_do_not_hold_it_for_ever(self) -> None:
        """R30: half of close_timeout for the confirms, then connection.close."""
        from txmsg.errors import PublishUnconfirmed

        connection = await self.connect(close_timeout=1.0)
        channel = await connection.channel()
        await channel.confirm_select()
        self.broker.on["content"] = ignore
        published = channel.basic_publish("", "q", b"x")
        started = self.now()
        await connection.close()
        self.assertTrue(0.4 < self.now() - started < 0.9, self.now() - started)
        error = await self.failure(published, PublishUnconfirmed)
        self.assertIsInstance(error.cause, (ConnectionClosed, ChannelClosed))
        self.assertEqual(self.session.names()[-1], "Connection.Close")

    async def test_no_close_for_a_lost_connection(self) -> None:
        """W-67, W-87, F-17, W-78: after the loss nothing is written, and close() of a channel is harmless."""
        connection = await self.connect()
        channel = await connection.channel()
        self.session.hang_up()
        reason = await connection.closed
        self.assertIs(await channel.close(), reason)
        await pause(0.02)
        self.assertEqual(self.session.names()[-1], "Channel.Open")

    async def test_cut_after_each_byte_of_a_session(self) -> None:
        """F4, F5, R2, R18, R28: the socket ends after byte k of what the broker says in a whole session."""

        async def session(cut: bool) -> None:
            connection = await self.connect(handshake_timeout=2.0, operation_timeout=2.0, close_timeout=0.3)
            channel = await connection.channel()
            calls: list[Deferred[Any]] = [channel.confirm_select(), channel.queue_declare("q", exclusive=True)]
            calls += [channel.basic_publish("", "q", b"body %d" % n, mandatory=n == 1) for n in range(3)]
            calls.append(channel.basic_publish("", "nobody", b"x", mandatory=True))
            consume = channel.basic_consume("q")
            calls.append(consume)
            for call in calls:
                await settle(call)
            consumer = await settle(consume)
            for _ in range(3):
                delivery = await settle(consumer.get()) if isinstance(consumer, Consumer) else None
                if isinstance(delivery, Delivery):
                    try:
                        delivery.ack()
                    except StaleDelivery:
                        assert cut
            await settle(channel.queue_declare("missing", passive=True))
            ended = await connection.close()
            assert isinstance(ended, Exception)

        await session(cut=False)
        total = self.session.written
        self.assertGreater(total, 700)
        opened = 480
        for index, after in enumerate(range(opened, total, 7)):
            self.broker.cut_after = after
            self.broker.cut = Session.hang_up if index % 2 else finish
            with contextlib.suppress(ConnectionClosed, NotFound):
                await session(cut=True)
        self.broker.cut_after = None
