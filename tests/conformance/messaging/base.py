"""What the cases of the messaging layer stand on: the same case over memory://, our own broker and RabbitMQ.

    class ConsumerCases(MessagingCase): ...                # the cases, not collected by themselves
    class ConsumerOverMemory(OverMemory, ConsumerCases): ...
    class ConsumerOverBroker(OverBroker, ConsumerCases): ...
    class ConsumerOverRabbitMQ(OverRabbitMQ, ConsumerCases): ...

`self.connection()` is a lazy :class:`~txmsg.messaging.Connection`, closed at the end of the case.  `await self.cut()`
ends all connections of the broker, as an operator does; `await self.restart()` is a broker that is killed and comes
again with what is durable (a case of the embedded broker sets `durable = True` for that).
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable
from typing import Any, TypeVar

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest

from tests.cases import RabbitMQTestCase, ReactorTestCase
from tests.conformance.embedded_node import EmbeddedNode
from txmsg.errors import ConnectionForced
from txmsg.messaging.connection.connection import Connection
from txmsg.testing import EmbeddedBroker
from txmsg.transports.memory import MemoryTransport
from txmsg.transports.registry import transport_for

__all__ = ["MessagingCase", "OverBroker", "OverMemory", "OverRabbitMQ", "reactor"]

reactor: Any = installed_reactor

E = TypeVar("E", bound=BaseException)


class MessagingCase(ReactorTestCase):
    """Helpers for a case; the class that it is combined with says over which broker."""

    __test__ = False
    #: "memory", "broker" or "rabbitmq": for what one of them cannot do.
    over = ""
    #: Whether connections come back by themselves, as those of amqp:// do.
    recovers = True

    def url(self) -> str:
        """Where the broker is."""
        raise NotImplementedError

    async def cut(self) -> None:
        """End all connections of the broker, as an operator does (320); they may come back."""
        raise NotImplementedError

    async def cut_off(self, *connections: Connection) -> None:
        """`cut`, and wait until each of these has noticed: when that is known, it may be back already."""
        lost = set[Connection]()

        def watch(connection: Connection) -> None:
            connection.add_recovery_callback(lambda reason, delay: lost.add(connection))

        for connection in connections:
            watch(connection)
        await self.cut()
        await self.until(lambda: len(lost) == len(connections))

    async def restart(self) -> None:
        """Kill the broker and start it again, on the same port; SkipTest where there is nothing to restart."""
        raise SkipTest("there is nothing to restart")

    def connection(self, **settings: Any) -> Connection:
        """A Connection that has not connected, closed at the end of the case."""
        made = Connection(self.url(), **settings)
        self.addCleanup(made.close)
        return made

    async def failure(self, deferred: Awaitable[Any], *types: type[E]) -> E:
        """The exception that `deferred` fails with, which must be one of `types`."""
        try:
            value = await deferred
        except types as error:
            return error
        raise self.failureException(f"succeeded with {value!r}")

    async def pause(self, seconds: float) -> None:
        """Let the reactor run for that long."""
        await deferLater(reactor, seconds)

    async def until(self, condition: Any, seconds: float = 10.0) -> None:
        """Wait until `condition()` is true."""
        for _ in range(int(seconds / 0.01)):
            if condition():
                return
            await self.pause(0.01)
        self.fail("it did not come true in time")

    async def until_depth(self, queue: str, expected: int) -> None:
        """Wait until `expected` messages are ready in `queue`."""
        connection = self.connection()
        channel = await connection.channel()
        found = -1
        for _ in range(300):
            found = (await channel.queue_declare(queue, passive=True)).message_count
            if found == expected:
                await connection.close()
                return
            await self.pause(0.02)
        self.assertEqual(found, expected)


class OverMemory(ReactorTestCase):
    """The case runs over ``memory://``, in a broker of its own."""

    __test__ = True
    over = "memory"
    recovers = False
    memory: MemoryTransport

    def setUp(self) -> None:
        """Choose a name."""
        self.memory_url = f"memory://test-{secrets.token_hex(6)}"
        transport = transport_for("memory")
        assert isinstance(transport, MemoryTransport)
        self.memory = transport
        self.addCleanup(transport.reset)

    def url(self) -> str:
        """Of this case alone."""
        return self.memory_url

    async def cut(self) -> None:
        """End all connections."""
        vhost = self.memory.vhost(self.memory_url)
        for connection in [each for each in self.memory._connections if each.vhost is vhost]:
            connection.end(ConnectionForced("CONNECTION_FORCED - closed by the test", 320, initiator="server"))


class OverBroker(ReactorTestCase):
    """The case runs over an embedded broker of its own, on a socket of the loopback interface."""

    __test__ = True
    over = "broker"
    #: Whether its durable things are on disk, so that it can be restarted.
    durable = False

    def setUp(self) -> Deferred[Any]:  # type: ignore[override]  # trial waits for it
        """Start it."""
        self.folder = self.mktemp() if self.durable else None
        self._make()
        return Deferred.fromCoroutine(self.node.start())

    def _make(self) -> None:
        self.embedded = EmbeddedBroker(data_dir=self.folder)
        self.node = EmbeddedNode(self.embedded)
        self.addCleanup(self.embedded.stop)

    async def restart(self) -> None:
        """Stop it, and start another one with its data on its port."""
        port = self.node.port
        await self.embedded.stop()
        self._make()
        await self.embedded.start()
        self.embedded._listeners.append(await self.embedded.broker.listen(self.node.host, port))
        self.node.port = port

    def url(self) -> str:
        """For guest."""
        return self.node.url

    async def cut(self) -> None:
        """End all connections."""
        await self.in_thread(self.node.close_all_connections, "closed by the test")


class OverRabbitMQ(RabbitMQTestCase):
    """The case runs over the private RabbitMQ node."""

    __test__ = True
    over = "rabbitmq"

    async def restart(self) -> None:
        """kill -9, and start again; takes some seconds."""
        await self.in_thread(self.node.kill)
        await self.in_thread(self.node.start)

    def url(self) -> str:
        """For guest."""
        return self.node.url

    async def cut(self) -> None:
        """End all connections."""
        await self.in_thread(self.node.close_all_connections, "closed by the test")
