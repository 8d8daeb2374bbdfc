"""Confirms and returns through the drop-in: rows N-01 to N-22 and K-13 of pika's adapter, its wrong ones right."""

from __future__ import annotations

from functools import partial
from typing import Any

from pamqp import commands
from pika import BasicProperties, exceptions, frame, spec
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from tests.compat.pika.cases import OverBroker, OverRabbitMQ, PikaCase, noting, outcomes, reactor, settle
from tests.conformance.base import ConfirmCase, OverPeer
from tests.conformance.minibroker import Session, ignore
from txmsg.compat.pika import ReceivedMessage, TwistedChannel, TwistedProtocolConnection


class ConfirmCases(PikaCase):
    async def confirming_channel(self) -> TwistedChannel:
        channel = await self.pika_channel()
        selected = await channel.confirm_delivery()
        self.assertIsInstance(selected, frame.Method)
        self.assertIsInstance(selected.method, spec.Confirm.SelectOk)
        return channel

    async def test_without_confirms(self) -> None:
        """K-31, N-11: fires at once with None; a return is only told to the callback."""
        channel = await self.pika_channel()
        returns: list[ReceivedMessage] = []
        channel.add_on_return_callback(returns.append)
        published = channel.basic_publish("", self.name("nowhere"), b"back", mandatory=True)
        self.assertTrue(published.called)
        self.assertIsNone(await published)
        await self.until(lambda: returns)
        self.assertEqual(returns[0].body, b"back")

    async def test_confirmed(self) -> None:
        """N-03, N-16, K-38: Basic.Ack; selecting again gives None and starts nothing anew."""
        channel = await self.confirming_channel()
        queue = await self.pika_queue(channel)
        bodies: list[bytes | str] = [b"x", "text", b""]
        for number, body in enumerate(bodies, 1):
            ack = await channel.basic_publish("", queue, body, BasicProperties(delivery_mode=2))
            self.assertIsInstance(ack, spec.Basic.Ack)
            self.assertEqual(ack.delivery_tag, number)
            self.assertIsNone(await channel.confirm_delivery())

    async def test_published_before_select_ok(self) -> None:
        """N-01, N-02, 24.3: what follows confirm_delivery() is counted from there."""
        channel = await self.pika_channel()
        queue = await self.pika_queue(channel)
        selecting = channel.confirm_delivery()
        first, second = channel.basic_publish("", queue, b"A"), channel.basic_publish("", queue, b"B")
        await selecting
        self.assertEqual([(await each).delivery_tag for each in (first, second)], [1, 2])

    async def test_four_hundred_of_which_every_seventh_is_unroutable(self) -> None:
        """N-07, N-09, N-10, N-12, 24.4: none is misreported; each has its own message."""
        channel = await self.confirming_channel()
        queue, nowhere = await self.pika_queue(channel), self.name("nowhere")
        told: list[bytes] = []
        channel.add_on_return_callback(lambda message: told.append(message.body))
        published: list[Deferred[Any]] = []
        told_before: list[bool] = []
        for number in range(400):
            body = b"%d" % number
            publishing = channel.basic_publish("", nowhere if number % 7 == 0 else queue, body, mandatory=True)
            if number % 7 == 0:
                publishing.addErrback(noting(told_before, partial(told.__contains__, body)))
            published.append(publishing)
        results: list[Any] = await DeferredList(published, consumeErrors=True)
        wrong = 0
        for number, (succeeded, result) in enumerate(results):
            if number % 7:
                wrong += not (succeeded and isinstance(result, spec.Basic.Ack) and result.delivery_tag == number + 1)
                continue
            error = None if succeeded else result.value
            wrong += not (isinstance(error, exceptions.UnroutableError) and len(error.messages) == 1)
            if error is not None:
                message = error.messages[0]
                wrong += message.body != b"%d" % number or message.method.routing_key != nowhere
        self.assertEqual(wrong, 0)
        self.assertEqual(told_before, [True] * 58)
        await self.pika_depth(channel, queue, 342)

    async def test_what_comes_back(self) -> None:
        """K-13, N-13: ReceivedMessage with this channel, Basic.Return, pika's properties, the body."""
        channel = await self.confirming_channel()
        key = self.name("nowhere")
        properties = BasicProperties(message_id="mine", headers={"a": 1})
        error = await self.failure(
            channel.basic_publish("amq.direct", key, b"back", properties, mandatory=True), exceptions.UnroutableError
        )
        [message] = error.messages
        self.assertIsInstance(message, ReceivedMessage)
        self.assertIs(message.channel, channel)
        self.assertIsInstance(message.method, spec.Basic.Return)
        self.assertEqual(
            (message.method.reply_code, message.method.reply_text, message.method.exchange, message.method.routing_key),
            (312, "NO_ROUTE", "amq.direct", key),
        )
        self.assertEqual(message.properties, properties)

    async def test_missing_exchange(self) -> None:
        """N-14, 24.6: pending confirms fail with the channel's 404."""
        channel = await self.confirming_channel()
        seen = outcomes([channel.basic_publish(self.name("missing"), "k", b"") for _ in range(3)])
        reason = await channel.on_closed
        self.assertIsInstance(reason, exceptions.ChannelClosedByBroker)
        self.assertEqual([value is reason for _, value in seen], [True] * 3)

    async def test_connection_lost(self) -> None:
        """N-15: all fail with what ended the connection; which of them arrived is unknown."""
        protocol = await self.pika_connect()
        channel = await protocol.channel()
        await channel.confirm_delivery()
        queue = await self.pika_queue(channel)
        seen = outcomes([channel.basic_publish("", queue, b"x") for _ in range(3)])
        transport: Any = protocol.transport
        transport.abortConnection()
        assert protocol.closed is not None
        reason = await protocol.closed
        self.assertEqual([value is reason for _, value in seen], [True] * 3)

    async def test_cancelled_publish(self) -> None:
        """N-22: its number is taken; the ones after it get their own answers."""
        channel = await self.confirming_channel()
        queue, nowhere = await self.pika_queue(channel), self.name("nowhere")
        keys = [queue, nowhere, queue, nowhere]
        published = [channel.basic_publish("", key, b"x", mandatory=True) for key in keys]
        seen = outcomes(published[:2])
        for publishing in published[:2]:
            publishing.cancel()
        self.assertEqual(len(seen), 2)
        self.assertEqual((await published[2]).delivery_tag, 3)
        await self.failure(published[3], exceptions.UnroutableError)
        self.assertTrue(channel.is_open)

    async def test_confirms_and_transactions(self) -> None:
        """N-17: 406."""
        channel = await self.confirming_channel()
        error = await settle(channel.tx_select())
        self.assertIsInstance(error, exceptions.ChannelClosedByBroker)
        self.assertEqual(error.reply_code, 406)


class ConfirmsOverRabbitMQ(OverRabbitMQ, ConfirmCases):
    pass


class ConfirmsOverBroker(OverBroker, ConfirmCases):
    pass


class ConfirmsOverPeer(OverPeer, ConfirmCase):
    """What only a scripted broker does."""

    async def scripted(self, count: int, on_content: Any = ignore) -> tuple[TwistedChannel, list[Any]]:
        """A confirm channel with `count` mandatory publishes that are not answered."""
        protocol = TwistedProtocolConnection()
        await connectProtocol(TCP4ClientEndpoint(reactor, self.host, self.port), protocol)
        self.addCleanup(protocol.close)
        channel = await (await protocol.whenReady()).channel()
        await channel.confirm_delivery()
        self.broker.on["content"] = on_content
        seen = outcomes([channel.basic_publish("", "q", b"%d" % n, mandatory=True) for n in range(count)])
        await channel.basic_qos()
        return channel, seen

    async def test_acks_and_nacks(self) -> None:
        """N-03 to N-06, 24.5: multiple, over gaps, on a number that is not pending; NackError has no messages."""
        channel, seen = await self.scripted(6)
        send, number = self.session.send, channel.channel_number
        send(number, commands.Basic.Ack(2))
        send(number, commands.Basic.Ack(2, multiple=True))
        send(number, commands.Basic.Nack(5, multiple=True))
        send(number, commands.Basic.Ack(6))
        await channel.basic_qos()
        self.assertEqual([index for index, _ in seen], [1, 0, 2, 3, 4, 5])
        self.assertEqual(
            [type(value).__name__ for _, value in seen], ["Ack", "Ack", "NackError", "NackError", "NackError", "Ack"]
        )
        self.assertEqual([value.messages for _, value in seen[2:5]], [[], [], []])

    async def test_return_then_nack(self) -> None:
        """N-08: NackError has the message that came back, and only the publish that it belongs to."""
        contents: list[tuple[Any, bytes, bytes]] = []

        def keep(session: Session, number: int, content: tuple[Any, bytes, bytes]) -> bool:
            contents.append(content)
            return True

        channel, seen = await self.scripted(2, keep)
        _, properties, body = contents[1]
        number = channel.channel_number
        self.session.send_content(number, commands.Basic.Return(312, "NO_ROUTE", "", "q"), properties, body)
        self.session.send(number, commands.Basic.Nack(2, multiple=True))
        await channel.basic_qos()
        errors = [value for _, value in sorted(seen)]
        self.assertEqual([type(error) for error in errors], [exceptions.NackError] * 2)
        self.assertEqual([len(error.messages) for error in errors], [0, 1])
        [message] = errors[1].messages
        self.assertIsInstance(message, ReceivedMessage)
        self.assertEqual((message.channel, message.body, message.method.reply_code), (channel, b"1", 312))
