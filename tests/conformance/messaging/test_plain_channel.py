"""Plain channels of amqp://: without confirms, and of one connection only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.conformance.messaging.base import MessagingCase, OverBroker, OverRabbitMQ
from txmsg.abc import MessagingChannel, OffersPlainChannels
from txmsg.errors import ConfigurationError, ConnectionClosed, ConsumerCancelled, EncodeError, NotFound, PublishReturned


class PlainChannelCases(MessagingCase):
    """`plain_channel` of a connection of a transport."""

    transport: Any

    async def plain(self, on_return: Any = None) -> Any:
        connection: Any = await self.connection().transport_connection()
        self.transport = connection
        self.assertIsInstance(connection, OffersPlainChannels)
        channel = await connection.plain_channel(on_return)
        self.assertIsInstance(channel, MessagingChannel)
        return channel

    async def test_returned(self) -> None:
        """What no queue takes comes back by itself, with its properties; publish has fired long before."""
        returned: list[tuple[PublishReturned, Mapping[str, Any]]] = []
        channel = await self.plain(lambda error, properties: returned.append((error, properties)))
        self.assertIsNone(
            await channel.publish(
                "", "plain.nowhere", b"x", {"correlation_id": "7", "headers": {"a": 1}}, mandatory=True
            )
        )
        await self.until(lambda: returned)
        error, properties = returned[0]
        self.assertEqual((error.routing_key, error.reply_code), ("plain.nowhere", 312))
        self.assertEqual(properties, {"correlation_id": "7", "headers": {"a": 1}})

    async def test_nobody_asks(self) -> None:
        """Without on_return it is dropped; the channel goes on."""
        channel = await self.plain()
        await channel.publish("", "plain.nowhere", b"x", mandatory=True)
        self.assertEqual((await channel.queue_declare("", exclusive=True)).message_count, 0)

    async def test_messages(self) -> None:
        """Published and consumed as on any channel; what AMQP cannot carry is refused."""
        channel = await self.plain()
        queue = (await channel.queue_declare("", exclusive=True)).name
        got: list[Any] = []
        ended: list[BaseException] = []
        await channel.consume(queue, got.append, no_ack=True, on_cancel=ended.append)
        await channel.publish("", queue, b"one", {"message_id": "1"})
        await channel.publish("", queue, b"two")
        await self.until(lambda: len(got) == 2)
        self.assertEqual(
            [(each.body, dict(each.properties)) for each in got], [(b"one", {"message_id": "1"}), (b"two", {})]
        )
        for wrong in ({"shape": 1}, {"expiration": 5}, {"headers": {"a": object()}}):
            await self.failure(channel.publish("", queue, b"x", wrong), EncodeError)
        await self.failure(channel.publish("", queue, "text"), EncodeError)
        await self.failure(channel.consume(queue, None), ConfigurationError)
        await channel.queue_delete(queue)
        await self.until(lambda: ended)
        self.assertIsInstance(ended[0], ConsumerCancelled)

    async def test_it_does_not_come_back(self) -> None:
        """The connection does, and gives another one as soon as it is there."""
        channel = await self.plain()
        reason = channel.when_closed()
        await self.cut()
        self.assertIsInstance(await reason, ConnectionClosed)
        await self.failure(channel.publish("", "q", b"x"), ConnectionClosed)
        self.assertFalse(channel.is_open)
        again = await self.transport.plain_channel()
        self.assertTrue(again.is_open)

    async def test_closed_by_the_broker(self) -> None:
        """That is its end, too."""
        channel = await self.plain()
        reason = channel.when_closed()
        await channel.publish("plain.missing", "", b"x")
        self.assertIsInstance(await reason, NotFound)


class PlainOverBroker(OverBroker, PlainChannelCases):
    """Our own broker."""


class PlainOverRabbitMQ(OverRabbitMQ, PlainChannelCases):
    """RabbitMQ."""
