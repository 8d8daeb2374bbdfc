"""What the drop-in's cases stand on: a broker of either kind, and txamqp's classes to meet it with."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from tests.conformance.base import BrokerCase, OverBroker, OverRabbitMQ, outcomes, pause, reactor, settle
from txmsg.compat.txamqp.channel import AMQChannel
from txmsg.compat.txamqp.client import TwistedDelegate
from txmsg.compat.txamqp.content import Content
from txmsg.compat.txamqp.protocol import AMQClient
from txmsg.compat.txamqp.queue import TimeoutDeferredQueue

__all__ = ["OverBroker", "OverRabbitMQ", "TxAMQPCase", "outcomes", "pause", "reactor", "settle"]


class TxAMQPCase(BrokerCase):
    """A program written for txamqp."""

    __test__ = False

    async def tx_transport(
        self, delegate: Any = None, kind: type[AMQClient] = AMQClient, vhost: str = "/", **settings: Any
    ) -> AMQClient:
        """A client whose TCP connection is made; it is closed at the end of the case."""
        client = kind(TwistedDelegate() if delegate is None else delegate, vhost, None, **settings)
        self.addCleanup(self._close_client, client)
        await connectProtocol(TCP4ClientEndpoint(reactor, self.node.host, self.node.port), client)
        return client

    async def tx_connect(self, delegate: Any = None, **settings: Any) -> AMQClient:
        """A client that is logged in."""
        client = await self.tx_transport(delegate, **settings)
        await client.authenticate("guest", "guest")
        return client

    def _close_client(self, client: AMQClient) -> Deferred[Any]:
        if client.native.transport is None:
            return succeed(None)
        client.close()
        return client.disconnected.wait()

    async def tx_channel(self, client: AMQClient | None = None, id: int = 1, **settings: Any) -> Any:
        """An open channel, on a connection of its own unless one is given."""
        if client is None:
            client = await self.tx_connect(**settings)
        channel = await client.channel(id)
        await channel.channel_open()
        return channel

    async def tx_queue(self, channel: Any, *bodies: str | bytes) -> str:
        """A new exclusive queue that holds `bodies`."""
        name = self.name("q")[-200:]
        await channel.queue_declare(queue=name, exclusive=True)
        for body in bodies:
            channel.basic_publish(routing_key=name, content=Content(body))
        found = 0
        for _ in range(100):
            found = (await channel.queue_declare(queue=name, passive=True)).message_count
            if found == len(bodies):
                return name
            await pause(0.02)
        raise self.failureException(f"{found} messages in place of {len(bodies)}")

    async def tx_consume(self, channel: AMQChannel, queue: str, **arguments: Any) -> TimeoutDeferredQueue:
        """The queue of a new consumer."""
        untyped: Any = channel
        reply = await untyped.basic_consume(queue=queue, **arguments)
        return await channel.client.queue(reply.consumer_tag)
