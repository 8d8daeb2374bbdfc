"""A connection over ``memory://`` on a clock that the test turns."""

from __future__ import annotations

import secrets
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmsg.errors import ConnectionForced
from txmsg.messaging import Channel, Connection
from txmsg.transports.memory import MemoryTransport
from txmsg.transports.registry import transport_for

__all__ = ["MemoryCase"]

_T = TypeVar("_T")


class MemoryCase(SynchronousTestCase):
    """Each test has a broker of its own; `turn()` lets happen what is due."""

    connection: Connection
    channel: Channel
    transport: MemoryTransport

    def setUp(self) -> None:
        self.clock = Clock()
        self.url = f"memory://test-{secrets.token_hex(6)}"
        transport = transport_for("memory")
        assert isinstance(transport, MemoryTransport)
        self.transport = transport
        self.addCleanup(self.turn)
        self.addCleanup(transport.reset)
        self.connection = self.connect()
        self.channel = self.done(self.connection.channel())

    def connect(self) -> Connection:
        """A lazy Connection to the broker of this test."""
        return Connection(self.url, reactor=self.clock)

    def turn(self, seconds: float = 0.0) -> None:
        """Let time pass, and what is due happen."""
        for _ in range(5):
            self.clock.advance(0)
        if seconds:
            self.clock.advance(seconds)
            self.turn()

    def done(self, deferred: Deferred[_T]) -> _T:
        """What `deferred` fires with, after some turns."""
        self.turn()
        return self.successResultOf(deferred)

    def run_async(self, coroutine: Any) -> Any:
        """What a coroutine returns, after some turns."""
        return self.done(Deferred.fromCoroutine(coroutine))

    def send(self, queue: str, *bodies: bytes, **properties: Any) -> None:
        """Publish bodies, as JSON unless `properties` say otherwise."""
        properties = properties or {"content_type": "application/json"}
        for body in bodies:
            self.done(self.channel.publish("", queue, body, properties))
        self.turn()

    def depth(self, queue: str) -> tuple[int, int]:
        """Ready and unsettled."""
        found = self.transport.vhost(self.url).queues[queue]
        return found.message_count, found.unacked_count

    def cut(self) -> None:
        """End all connections of the broker."""
        vhost = self.transport.vhost(self.url)
        for connection in [each for each in self.transport._connections if each.vhost is vhost]:
            connection.end(ConnectionForced("CONNECTION_FORCED", 320, initiator="server"))
