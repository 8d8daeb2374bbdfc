"""The contract of connections and channels: what they are, how they end."""

from __future__ import annotations

from txmsg import abc
from txmsg.errors import ChannelClosed, ConnectionClosed, TxmsgError
from txmsg.testing.contract.case import ContractCase

__all__ = ["LifeContract"]


class LifeContract(ContractCase):
    """Connections and channels."""

    async def test_the_protocols(self) -> None:
        """Connection, channel and delivery have all the methods that the contract names."""
        connection = await self.connect()
        channel = await connection.channel()
        queue = await self.queue(channel, b"x")
        delivery = await channel.get(queue)
        self.assertIsInstance(connection, abc.MessagingConnection)
        self.assertIsInstance(channel, abc.MessagingChannel)
        self.assertIsInstance(delivery, abc.MessagingDelivery)
        self.assertTrue(connection.is_open and channel.is_open)
        for shown in (connection, channel, delivery):
            self.assertIn(type(shown).__name__, repr(shown))

    async def test_the_end_of_a_connection(self) -> None:
        """Its channels end with it, and what is asked of them fails and says so; closing twice is fine."""
        connection = await self.connect()
        channel = await connection.channel()
        await connection.close()
        await connection.close()
        self.assertFalse(connection.is_open or channel.is_open)
        for ended in (connection, channel):
            reason = await ended.when_closed()
            self.assertIsInstance(reason, (ConnectionClosed, ChannelClosed))
            self.assertEqual(reason.initiator, "client")
        await self.failure(channel.publish("", "q", b""), TxmsgError)
        await self.failure(channel.queue_declare("q"), TxmsgError)
        await self.failure(connection.channel(), ConnectionClosed)

    async def test_many_channels(self) -> None:
        """One after another: what is closed is not kept, and the others do not notice."""
        connection = await self.connect()
        channel = await connection.channel()
        queue = await self.queue(channel)
        for _ in range(100):
            other = await connection.channel()
            await other.close()
            await other.close()
            self.assertFalse(other.is_open)
        await channel.publish("", queue, b"x")
        self.assertEqual((await channel.get(queue)).body, b"x")
