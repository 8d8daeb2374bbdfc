"""What the drop-in's cases stand on: a broker of either kind, and pika's classes to meet it with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pika
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from tests.conformance.base import BrokerCase, OverBroker, OverRabbitMQ, outcomes, pause, reactor, settle
from txmsg.compat.pika import TwistedChannel, TwistedProtocolConnection

__all__ = ["OverBroker", "OverRabbitMQ", "PikaCase", "noting", "outcomes", "pause", "reactor", "settle"]


def noting(seen: list[Any], look: Callable[[], object]) -> Callable[[Any], Any]:
    """A callback (or errback) that appends what `look()` returns, and passes on what it is given."""

    def note(result: Any) -> Any:
        seen.append(look())
        return result

    return note


class PikaCase(BrokerCase):
    """A program written for pika's adapter."""

    __test__ = False

    def pika_parameters(self, **overrides: Any) -> Any:
        """pika's parameters for the broker."""
        settings: dict[str, Any] = {
            "host": self.node.host,
            "port": self.node.port,
            "credentials": pika.PlainCredentials("guest", "guest"),
        }
        return pika.ConnectionParameters(**(settings | overrides))

    async def transport_up(
        self, parameters: Any = None, kind: type[TwistedProtocolConnection] = TwistedProtocolConnection
    ) -> TwistedProtocolConnection:
        """A protocol whose TCP connection is made; it is closed at the end of the case."""
        protocol = kind(self.pika_parameters() if parameters is None else parameters)
        endpoint = TCP4ClientEndpoint(reactor, self.node.host, self.node.port)
        self.addCleanup(self._close_pika, protocol)
        await connectProtocol(endpoint, protocol)
        return protocol

    async def pika_connect(
        self, kind: type[TwistedProtocolConnection] = TwistedProtocolConnection, **overrides: Any
    ) -> TwistedProtocolConnection:
        """A connection that is ready."""
        protocol = await self.transport_up(self.pika_parameters(**overrides), kind)
        await protocol.whenReady()
        return protocol

    def _close_pika(self, protocol: TwistedProtocolConnection) -> Deferred[Any]:
        if protocol._impl.native.transport is None:
            return succeed(None)
        return protocol.close()

    async def pika_channel(self, **overrides: Any) -> TwistedChannel:
        """A channel on a connection of its own."""
        return await (await self.pika_connect(**overrides)).channel()

    async def pika_queue(self, channel: TwistedChannel, *bodies: bytes, **settings: Any) -> str:
        """A new queue that holds `bodies`."""
        frame = await channel.queue_declare(self.name("q")[-200:], **({"exclusive": True} | settings))
        queue: str = frame.method.queue
        for body in bodies:
            channel.basic_publish("", queue, body)
        if bodies:
            await self.pika_depth(channel, queue, len(bodies))
        return queue

    async def pika_depth(self, channel: TwistedChannel, queue: str, expected: int) -> None:
        """Wait until the queue holds that many."""
        found = -1
        for _ in range(100):
            found = (await channel.queue_declare(queue, passive=True)).method.message_count
            if found == expected:
                return
            await pause(0.02)
        self.assertEqual(found, expected)
