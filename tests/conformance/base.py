"""What the conformance cases stand on: the same case runs over RabbitMQ, our own broker, and a small one on pamqp.

    class GetCases(BrokerCase): ...                        # the cases, not collected by themselves
    class GetOverRabbitMQ(OverRabbitMQ, GetCases): ...
    class GetOverBroker(OverBroker, GetCases): ...
    class GetOverPeer(OverPeer, GetCases): ...

Every connection that a case makes is closed at its end.  What trial then finds left in the reactor (delayed
calls, sockets) or logged as an error fails the case, so R28 is asserted by each of them.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from functools import partial
from typing import Any, TypeVar

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.cases import RabbitMQTestCase, ReactorTestCase
from tests.conformance.embedded_node import EmbeddedNode
from tests.conformance.minibroker import MiniBroker, Session
from txmsg.amqp import AMQPProtocol, Channel, ConnectionParameters, Delivery, connect
from txmsg.testing import EmbeddedBroker, free_ports

__all__ = [
    "BrokerCase",
    "ConfirmCase",
    "OverBroker",
    "OverPeer",
    "OverRabbitMQ",
    "outcomes",
    "pause",
    "reactor",
    "settle",
]

reactor: Any = installed_reactor

E = TypeVar("E", bound=BaseException)


def pause(seconds: float) -> Deferred[None]:
    """Let the reactor run for that long."""
    return deferLater(reactor, seconds, lambda: None)


def outcomes(deferreds: list[Deferred[Any]]) -> list[Any]:
    """A list that is filled, in the order of the ends, with (index, value or exception)."""
    seen: list[Any] = []
    for index, deferred in enumerate(deferreds):
        deferred.addCallbacks(partial(_note, seen, index), partial(_note, seen, index))
    return seen


def _note(seen: list[Any], index: int, result: Any) -> None:
    seen.append((index, result.value if isinstance(result, Failure) else result))


async def settle(deferred: Deferred[Any]) -> Any:
    """What `deferred` ends with: its value or the exception."""
    try:
        return await deferred
    except Exception as error:
        return error


class BrokerCase(ReactorTestCase):
    """Helpers for a case that needs a broker; the subclass says which."""

    __test__ = False
    #: What an operator can do, where there is one: a RabbitMQNode, or an EmbeddedNode.
    node: Any

    def parameters(self, **overrides: Any) -> ConnectionParameters:
        """Parameters that lead to the broker."""
        raise NotImplementedError

    async def connect(self, **overrides: Any) -> AMQPProtocol:
        """An open connection, closed at the end of the case."""
        connection = await connect(self.parameters(**overrides))
        self.addCleanup(self._close, connection)
        return connection

    def _close(self, connection: AMQPProtocol) -> Deferred[Any]:
        return connection.close()

    async def channel(self, connection: AMQPProtocol | None = None, **overrides: Any) -> Channel:
        """An open channel, on a connection of its own unless one is given."""
        if connection is None:
            connection = await self.connect(**overrides)
        return await connection.channel()

    async def queue(self, channel: Channel, *bodies: bytes) -> str:
        """The name of a new exclusive queue that holds `bodies`."""
        declared = await channel.queue_declare(self.name("q")[-200:], exclusive=True)
        for body in bodies:
            channel.basic_publish("", declared.queue, body)
        if bodies:
            await self.until_depth(channel, declared.queue, len(bodies))
        return declared.queue

    async def get(self, channel: Channel, queue: str, *, no_ack: bool = True) -> Delivery:
        """The message that `queue` must hold."""
        delivery = await channel.basic_get(queue, no_ack=no_ack)
        assert delivery is not None, f"{queue} is empty"
        return delivery

    async def get_all(self, channel: Channel, queue: str, count: int, *, no_ack: bool = True) -> list[Delivery]:
        """The first `count` messages of `queue`, asked for all at once."""
        found = await gatherResults([channel.basic_get(queue, no_ack=no_ack) for _ in range(count)])
        deliveries = [delivery for delivery in found if delivery is not None]
        self.assertEqual(len(deliveries), count)
        return deliveries

    async def depth(self, channel: Channel, queue: str) -> int:
        """How many messages are ready in `queue`."""
        declared = await channel.queue_declare(queue, passive=True)
        return declared.message_count

    async def until_depth(self, channel: Channel, queue: str, expected: int) -> None:
        """Wait until `expected` messages are ready in `queue`: the broker may take a moment to see them."""
        for _ in range(100):
            if await self.depth(channel, queue) == expected:
                return
            await pause(0.02)
        self.assertEqual(await self.depth(channel, queue), expected)

    async def failure(self, deferred: Awaitable[Any], *types: type[E]) -> E:
        """The exception that `deferred` fails with, which must be one of `types`."""
        try:
            value = await deferred
        except types as error:
            return error
        raise self.failureException(f"succeeded with {value!r}")

    @staticmethod
    def now() -> float:
        """Seconds of a clock that is never set."""
        return time.monotonic()

    async def until(self, condition: Any, seconds: float = 5.0) -> None:
        """Wait until `condition()` is true."""
        for _ in range(int(seconds / 0.01)):
            if condition():
                return
            await pause(0.01)
        self.fail("it did not come true in time")


class ConfirmCase(BrokerCase):
    """A case about publishing."""

    async def confirming(self, **overrides: Any) -> Channel:
        """A channel in confirm mode."""
        channel = await self.channel(**overrides)
        await channel.confirm_select()
        return channel


class OverRabbitMQ(RabbitMQTestCase):
    """The case runs over the private RabbitMQ node."""

    __test__ = True


class OverBroker(ReactorTestCase):
    """The case runs over an embedded broker of its own, `self.embedded`, on a socket of the loopback interface."""

    __test__ = True

    def setUp(self) -> Deferred[Any]:  # type: ignore[override]  # trial waits for it
        """Start it."""
        self.embedded = EmbeddedBroker()
        #: What an operator can do, as with the RabbitMQ node.
        self.node = EmbeddedNode(self.embedded)
        self.addCleanup(self.embedded.stop)
        return Deferred.fromCoroutine(self.node.start())

    def parameters(self, **overrides: Any) -> ConnectionParameters:
        """Parameters for it, user ``guest``, virtual host ``/``, with the fields given as keywords."""
        return ConnectionParameters.from_url(self.node.url, **overrides)


class OverPeer(ReactorTestCase):
    """The case runs over a MiniBroker of its own, `self.broker`, on loopback."""

    __test__ = True
    host = "127.0.0.1"

    def setUp(self) -> None:
        """Listen."""
        self.broker = MiniBroker()
        self.listen()
        self.addCleanup(self._stop)

    def listen(self) -> None:
        """Listen on a free port below the ephemeral range."""
        for _ in range(20):
            [self.port] = free_ports(1, host=self.host)
            try:
                self._port = reactor.listenTCP(self.port, self.broker, interface=self.host)
            except CannotListenError:
                continue
            return
        raise OSError("no port to listen on")

    def parameters(self, **overrides: Any) -> ConnectionParameters:
        """Parameters that lead to the peer."""
        settings: dict[str, Any] = {"host": self.host, "port": self.port, "connect_timeout": 5.0}
        return ConnectionParameters(**(settings | overrides))

    @property
    def session(self) -> Session:
        """The peer's side of the last connection."""
        return self.broker.sessions[-1]

    def _stop(self) -> Deferred[Any]:
        for session in self.broker.sessions:
            if not session.is_lost:
                session.hang_up()
        gone = [session.gone for session in self.broker.sessions]
        done = gatherResults([self._port.stopListening(), *gone])
        return done.addCallback(self._check_peer)

    def _check_peer(self, _: object) -> None:
        for failure in self.broker.errors:
            self.fail(f"the client broke the protocol: {failure.getErrorMessage()}\n{failure.getTraceback()}")
