"""The contract of `publish`: what arrives, and what does not."""

from __future__ import annotations

from typing import Any

from txmsg import abc
from txmsg.errors import EncodeError, NotFound, PublishNacked, PublishReturned
from txmsg.testing.contract.case import ContractCase, needs

__all__ = ["PublishingContract"]


class PublishingContract(ContractCase):
    """Messages, their properties, and the outcomes of a publish."""

    async def test_a_message_comes_as_it_was(self) -> None:
        """Body, exchange, key, and all properties; those that were not given are not there."""
        channel = await self.channel()
        queue = await self.queue(channel)
        await channel.publish("", queue, b"body", self.message_properties)
        await channel.publish("", queue, bytearray(b"more"))
        first = await channel.get(queue)
        self.assertEqual((first.body, first.exchange, first.routing_key), (b"body", "", queue))
        self.assertEqual(dict(first.properties), dict(self.message_properties))
        self.assertIsNone(first.properties_error)
        self.assertEqual((first.consumer_tag, first.redelivered), ("", False))
        second = await channel.get(queue, no_ack=True)
        self.assertEqual((second.body, dict(second.properties)), (b"more", {}))
        self.assertTrue(second.is_settled)
        self.assertIsNone(await channel.get(queue))

    @needs("exchanges")
    async def test_headers_are_copied(self) -> None:
        """What a sender or a receiver changes later, nobody else sees."""
        channel = await self.channel()
        one, two = await self.queue(channel), await self.queue(channel)
        exchange = self.unique("x")
        await channel.exchange_declare(exchange, "fanout", auto_delete=True)
        for queue in (one, two):
            await channel.queue_bind(queue, exchange)
        headers = {"list": [1]}
        publish = channel.publish(exchange, "", b"", {"headers": headers})
        headers["list"].append(2)
        await publish
        first = await channel.get(one)
        first.properties["headers"]["list"].append(3)
        second = await channel.get(two)
        self.assertEqual(second.properties["headers"], {"list": [1]})

    async def test_what_amqp_cannot_carry(self) -> None:
        """EncodeError, which costs the message and not the channel."""
        channel = await self.channel()
        queue = await self.queue(channel)
        bad: list[dict[str, Any]] = [
            {"priority": 256},
            {"content_type": "x" * 256},
            {"headers": {"set": {1}}},
            {"colour": "red"},
            {"expiration": 60000},
        ]
        for properties in bad:
            with self.subTest(properties=properties):
                await self.failure(channel.publish("", queue, b"", properties), EncodeError)
        await self.failure(channel.publish("", queue, "text"), EncodeError)
        for value in (5, True, b"queue", object(), [1], "\ud800"):
            with self.subTest(value=value):
                await self.failure(channel.publish("", queue, b"", value), EncodeError)
                await self.failure(channel.publish("", value, b""), EncodeError)
                await self.failure(channel.publish(value, queue, b""), EncodeError)
        await channel.publish("", queue, b"fine")
        self.assertEqual((await channel.get(queue)).body, b"fine")

    async def test_nobody_gets_it(self) -> None:
        """A mandatory message fails with PublishReturned, another one is dropped; the channel stays open."""
        channel = await self.channel()
        await channel.publish("", self.unique("nowhere"), b"")
        error = await self.failure(channel.publish("", self.unique("nowhere"), b"", mandatory=True), PublishReturned)
        self.assertEqual((error.reply_code, error.reply_text), (312, "NO_ROUTE"))
        self.assertTrue(channel.is_open)

    @needs("queue arguments")
    async def test_a_full_queue_refuses(self) -> None:
        """x-overflow reject-publish: PublishNacked."""
        channel = await self.channel()
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
        queue = await self.queue(channel, b"1", arguments=arguments)
        await self.failure(channel.publish("", queue, b"2"), PublishNacked)

    @needs("exchanges")
    async def test_no_such_exchange(self) -> None:
        """NotFound ends the channel, and everything on it says so; the connection goes on.

        On a connection that recovers the channel is open again by itself, with its consumers.
        """
        connection = await self.connect()
        channel = await connection.channel()
        queue = await self.queue(channel)
        got: list[Any] = []
        await channel.consume(queue, got.append)
        error = await self.failure(channel.publish("no such exchange", "", b""), NotFound)
        self.assertIn("NOT_FOUND - no exchange 'no such exchange' in vhost", error.reply_text)
        self.assertFalse(channel.is_open)
        if isinstance(connection, abc.RecoveringMessagingConnection):
            await self.until(lambda: channel.is_open)
            await channel.publish("", queue, b"again")
            await self.until(lambda: got)
            return
        await self.failure(channel.queue_declare("q"), NotFound)
        self.assertIsInstance(await channel.when_closed(), NotFound)
        self.assertTrue((await connection.channel()).is_open)
