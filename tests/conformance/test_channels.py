"""Channels: opening, numbers, isolation of failures, closing, order of replies."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from tests.conformance.base import BrokerCase, OverBroker, OverPeer, OverRabbitMQ, outcomes, pause, settle
from txmsg.amqp import Channel
from txmsg.errors import (
    ChannelClosed,
    ChannelLimitReached,
    ChannelNumberInUse,
    ConnectionClosed,
    EncodeError,
    NotFound,
    PreconditionFailed,
    PublishFailed,
    TxmsgError,
)


class ChannelCases(BrokerCase):
    async def test_lowest_free_number(self) -> None:
        """F-08, W-39: numbers from 1; the first free one is used again after close-ok (kombu D7, W28)."""
        connection = await self.connect()
        channels = [await connection.channel() for _ in range(3)]
        self.assertEqual([c.channel_number for c in channels], [1, 2, 3])
        await channels[1].close()
        self.assertEqual((await connection.channel()).channel_number, 2)
        self.assertEqual((await connection.channel(0)).channel_number, 4)
        self.assertEqual((await connection.channel(77)).channel_number, 77)

    async def test_numbers_that_cannot_be_had(self) -> None:
        """F-09, F-10, S-25: taken, above the negotiated maximum, not a number: refused without a byte sent.

        kombu D7
        """
        connection = await self.connect(channel_max=10)
        first = await connection.channel(3)
        await self.failure(connection.channel(3), ChannelNumberInUse)
        for wrong in (11, -1, "4", 2.5, True):
            await self.failure(connection.channel(wrong), TxmsgError, TypeError)  # type: ignore[arg-type]
        self.assertTrue(first.is_open)
        await first.queue_declare(exclusive=True)

    async def test_all_numbers_in_use(self) -> None:
        """S-09: ChannelLimitReached, and a number is free again after a close."""
        connection = await self.connect(channel_max=3)
        channels = await gatherResults([connection.channel() for _ in range(3)])
        await self.failure(connection.channel(), ChannelLimitReached)
        await channels[0].close()
        self.assertEqual((await connection.channel()).channel_number, 1)

    async def test_a_failure_stays_on_its_channel(self) -> None:
        """R17, K-39, S-18, S-19, W-74, M-04: code, text, class and method are there; the other channel and the
        connection go on.

        kombu D8
        """
        connection = await self.connect()
        bad, good = await connection.channel(), await connection.channel()
        queue = await self.queue(good, b"one")
        missing = self.name("missing")
        error = await self.failure(bad.queue_declare(missing, passive=True), NotFound)
        self.assertEqual((error.reply_code, error.class_id, error.method_id), (404, 50, 10))
        self.assertEqual(error.method_name, "queue.declare")
        self.assertEqual(error.initiator, "server")
        self.assertIn(missing, error.reply_text)
        self.assertIs(await bad.closed, error)
        self.assertTrue(bad.is_closed)
        self.assertFalse(bad.is_open)
        self.assertTrue(connection.is_open)
        delivery = await good.basic_get(queue)
        assert delivery is not None
        delivery.ack()
        # The number is free again.
        self.assertEqual((await connection.channel()).channel_number, bad.channel_number)

    async def test_calls_behind_a_failing_one(self) -> None:
        """K-07, K-08, R17: those before it succeed; it and those behind it fail with one reason."""
        channel = await self.channel()
        name = self.name("q")
        before = channel.queue_declare(name, exclusive=True)
        failing = channel.queue_declare(self.name("missing"), passive=True)
        behind: list[Deferred[Any]] = [
            channel.queue_declare(self.name("other"), exclusive=True),
            channel.basic_get(name),
            channel.basic_consume(name),
            channel.basic_qos(5),
        ]
        declared = await before
        self.assertEqual(declared.queue, name)
        error = await self.failure(failing, NotFound)
        for deferred in behind:
            self.assertIs(await self.failure(deferred, NotFound), error)

    async def test_calls_on_a_closed_channel(self) -> None:
        """K-03, K-29, W-73, W-23, K-32: every method fails with the stored reason, every property can be read."""
        channel = await self.channel()
        error = await self.failure(channel.queue_declare(self.name("missing"), passive=True), NotFound)
        for _ in range(2):
            for deferred in every_call(channel):
                self.assertIs(await self.failure(deferred, NotFound), error)
        failed = await self.failure(channel.basic_publish("", "q", b""), PublishFailed, ChannelClosed)
        self.assertTrue(failed is error or getattr(failed, "cause", None) is error)
        self.assertEqual(channel.channel_number, 1)
        self.assertFalse(channel.is_open)
        self.assertTrue(channel.is_closed)
        self.assertEqual(list(channel.consumers), [])
        self.assertIn("closed", repr(channel))

    async def test_close(self) -> None:
        """K-52, S-20, M-14, M-04: it fires after close-ok; the reason names the client; closing again: the same.

        kombu D6
        """
        channel = await self.channel()
        waiting = channel.queue_declare(exclusive=True)
        consumer = await channel.basic_consume((await waiting).queue)
        pending_get = consumer.get()
        first, second = channel.close(), channel.close()
        await first
        await second
        await channel.close()
        reason = await channel.closed
        self.assertIsInstance(reason, ChannelClosed)
        self.assertEqual((reason.reply_code, reason.initiator), (200, "client"))  # type: ignore[attr-defined]
        self.assertIs(await channel.when_closed(), reason)
        self.assertIs(await self.failure(pending_get, ChannelClosed), reason)
        self.assertIs(await self.failure(channel.basic_qos(1), ChannelClosed), reason)

    async def test_calls_under_way_at_close(self) -> None:
        """R2, R17: replies that come after our channel.close are discarded: such calls fail with its reason.

        kombu D6
        """
        channel = await self.channel()
        declares = [channel.queue_declare(self.name("q"), exclusive=True) for _ in range(5)]
        reason = await channel.close()
        for deferred in declares:
            self.assertIs(await self.failure(deferred, ChannelClosed), reason)

    async def test_close_while_opening(self) -> None:
        """W-14, M-13: cancelling the opening frees the number, and the connection goes on."""
        connection = await self.connect(channel_max=1)
        opening = connection.channel()
        opening.cancel()
        await settle(opening)
        for _ in range(100):
            channel = await settle(connection.channel())
            if isinstance(channel, Channel):
                break
            await pause(0.01)
        self.assertTrue(channel.is_open)

    async def test_a_thousand_channels(self) -> None:
        """W-82, R31, peers 27: opened, used and closed one after the other; nothing grows in the connection.

        kombu W28
        """
        connection = await self.connect()
        for _ in range(1000):
            channel = await connection.channel()
            self.assertEqual(channel.channel_number, 1)
            await channel.close()
        self.assertEqual(len(connection.channels), 0)

    async def test_many_failing_channels(self) -> None:
        """peers 10, M-17: a number is given out only after close-ok; a loop of failing channels never trips."""
        connection = await self.connect()
        for _ in range(50):
            failing, working = await gatherResults([connection.channel(), connection.channel()])
            error = failing.exchange_declare(self.name("x"), "direct", passive=True)
            await self.failure(error, NotFound)
            reopened = await connection.channel()
            used: list[Deferred[Any]] = [working.queue_declare(exclusive=True), reopened.basic_qos(1)]
            await gatherResults(used)
            await gatherResults([working.close(), reopened.close()])
        self.assertTrue(connection.is_open)

    async def test_refused_arguments_are_typed(self) -> None:
        """K-05, M-22, Q-21, Q-22, S-32, S-37: what AMQP cannot carry fails before anything is sent; the channel is as
        before.
        """
        channel = await self.channel()
        wrong: list[Deferred[Any]] = [
            channel.queue_declare(123),  # type: ignore[call-overload]
            channel.queue_declare("n" * 256),
            channel.queue_declare("é" * 200),
            channel.queue_declare("q", arguments={"x": object()}),
            channel.queue_declare("q", arguments={"x" * 300: 1}),
            channel.queue_declare("q", arguments={"x": 2**70}),
            channel.basic_qos(70000),
            channel.basic_qos(-1),
            channel.basic_consume(5),  # type: ignore[arg-type]
            channel.basic_get(None),  # type: ignore[arg-type]
            channel.exchange_declare("x", b"direct"),  # type: ignore[arg-type]
        ]
        for deferred in wrong:
            await self.failure(deferred, EncodeError)
        for publish in (
            channel.basic_publish("", "k" * 256, b""),
            channel.basic_publish("", "q", 5),  # type: ignore[arg-type]
            channel.basic_publish(None, "q", b""),  # type: ignore[arg-type]
        ):
            await self.failure(publish, EncodeError, PublishFailed)
        self.assertTrue(channel.is_open)
        await channel.queue_declare(exclusive=True)

    async def test_close_inside_an_errback(self) -> None:
        """K-11: callbacks that fire while a channel ends may call anything; each Deferred fires once."""
        connection = await self.connect()
        channel, other = await connection.channel(), await connection.channel()
        inner: list[Deferred[Any]] = []

        def again(failure: Any) -> None:
            inner.append(channel.queue_declare(exclusive=True))
            inner.append(channel.close())
            inner.append(other.close())
            inner.append(connection.channel())

        failing: list[Deferred[Any]] = [channel.queue_declare(self.name("missing"), passive=True) for _ in range(3)]
        for deferred in failing:
            deferred.addErrback(again)
        await gatherResults(failing)
        for deferred in inner:
            await settle(deferred)
        self.assertTrue(connection.is_open)

    async def test_connection_close_reaches_every_channel(self) -> None:
        """W-17, F-21: with fifty channels whose callbacks open and close others."""
        connection = await self.connect()
        channels = await gatherResults([connection.channel() for _ in range(50)])
        late: list[Deferred[Any]] = []
        for index, channel in enumerate(channels):

            def meddle(reason: BaseException, index: int = index) -> BaseException:
                late.append(connection.channel())
                late.append(channels[-index].close())
                return reason

            channel.closed.addCallback(meddle)
        reason = await connection.close()
        self.assertEqual({id(await c.when_closed()) for c in channels}, {id(reason)})
        for deferred in late:
            await settle(deferred)

    async def test_channel_on_a_closed_connection(self) -> None:
        """W-15, J-11: a failed Deferred with the connection's reason."""
        connection = await self.connect()
        reason = await connection.close()
        self.assertIs(await self.failure(connection.channel(), ConnectionClosed), reason)

    async def test_declare_mismatch(self) -> None:
        """F44, K-39: other arguments give PreconditionFailed, exclusive elsewhere ResourceLocked (kombu D21, D24)."""
        connection = await self.connect()
        channel = await connection.channel()
        queue = await self.queue(channel)
        error = await self.failure(channel.queue_declare(queue, exclusive=True, auto_delete=True), PreconditionFailed)
        self.assertEqual(error.reply_code, 406)
        self.assertFalse(error.recoverable)


def every_call(channel: Channel) -> list[Deferred[Any]]:
    """One Deferred of each method that waits for a reply."""
    return [
        channel.exchange_declare("x"),
        channel.exchange_delete("x"),
        channel.exchange_bind("x", "y"),
        channel.exchange_unbind("x", "y"),
        channel.queue_declare("q"),
        channel.queue_bind("q", "x"),
        channel.queue_unbind("q", "x"),
        channel.queue_purge("q"),
        channel.queue_delete("q"),
        channel.basic_qos(1),
        channel.basic_recover(),
        channel.basic_get("q"),
        channel.basic_consume("q"),
        channel.confirm_select(),
        channel.tx_select(),
        channel.tx_commit(),
        channel.tx_rollback(),
        channel.flow(True),
    ]


class ChannelsOverRabbitMQ(OverRabbitMQ, ChannelCases):
    pass


class ChannelsOverBroker(OverBroker, ChannelCases):
    pass


class ChannelsOverPeer(OverPeer, ChannelCases):
    pass


class OrderCases(BrokerCase):
    async def test_replies_in_the_order_of_the_calls(self) -> None:
        """W-86, K-07: fifty calls of mixed kinds written at once, each with its own reply."""
        channel = await self.channel()
        names = [self.name("q") for _ in range(10)]
        calls: list[Deferred[Any]] = []
        for name in names:
            calls += [
                channel.queue_declare(name, exclusive=True),
                channel.basic_qos(10),
                channel.basic_get(name),
                channel.queue_purge(name),
                channel.queue_delete(name),
            ]
        seen = outcomes(calls)
        await gatherResults(calls)
        self.assertEqual([index for index, _ in seen], list(range(50)))
        self.assertEqual([value.queue for index, value in seen if index % 5 == 0], names)
        self.assertEqual([value for index, value in seen if index % 5 == 2], [None] * 10)


class OrderOverRabbitMQ(OverRabbitMQ, OrderCases):
    pass


class OrderOverBroker(OverBroker, OrderCases):
    pass


class OrderOverPeer(OverPeer, OrderCases):
    pass
