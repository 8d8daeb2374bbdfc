"""A client of the broker for tests of channels: the wire's client end over a string transport, at a `task.Clock`.

:class:`ClientTestCase` has a broker, and clients of it; what a client sends in one go arrives in one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from txmsg.broker.connection.connection import BrokerConnection
from txmsg.broker.interfaces import NoJournal
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.server import Broker
from txmsg.broker.users.credentials import Users
from txmsg.broker.vhost.vhost import VirtualHost
from txmsg.errors import TxmsgError
from txmsg.wire.connection import Limits, Role, WireConnection
from txmsg.wire.events import ACK, DELIVER, GET_OK, NACK, RETURN, ContentEvent, MethodReceived
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic, channel, confirm, connection, queue, tx
from txmsg.wire.properties import NO_PROPERTIES, BasicProperties

__all__ = ["Client", "ClientTestCase", "WaitingJournal", "acks", "deliveries"]

EVERYTHING = {
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
    "authentication_failure_close": True,
    "connection.blocked": True,
}


class Transport(StringTransport):
    """A string transport that ends at once when it is told to."""

    protocol: Any = None

    def loseConnection(self) -> None:
        """ITransport."""
        super().loseConnection()
        self.disconnected = True

    def abortConnection(self) -> None:
        """ITCPTransport."""
        super().abortConnection()
        self.disconnected = True


class WaitingJournal(NoJournal):
    """A journal that keeps nothing, and says so when a test wants it to."""

    is_durable = True

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], object], Callable[[TxmsgError], object] | None]] = []
        self.is_prompt = False

    def after_commit(
        self, callback: Callable[[], object], failed: Callable[[TxmsgError], object] | None = None
    ) -> None:
        """As in Journal."""
        if self.is_prompt:
            callback()
        else:
            self.waiting.append((callback, failed))

    def commit(self, count: int | None = None) -> None:
        """All, or the first `count`, are safe."""
        taken = self.waiting[:count]
        del self.waiting[:count]
        for callback, _ in taken:
            callback()

    def fail(self) -> None:
        """None of those that wait can be kept."""
        waiting, self.waiting = self.waiting, []
        for _, failed in waiting:
            assert failed is not None
            failed(TxmsgError("no space left"))


class Client:
    """A client with open channels.

    connection: BrokerConnection -- what it talks to.  wire: WireConnection -- its own end.
    """

    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        *,
        channels: int = 1,
        frame_max: int = 131072,
        user: str = "guest",
        capabilities: Mapping[str, bool] = EVERYTHING,
    ) -> None:
        self.clock = clock
        self.transport = Transport(
            hostAddress=IPv4Address("TCP", "127.0.0.1", 5672), peerAddress=IPv4Address("TCP", "127.0.0.1", 50000)
        )
        made = broker.factory.buildProtocol(self.transport.getPeer())
        assert isinstance(made, BrokerConnection)
        self.connection = made
        self.wire = WireConnection(Role.CLIENT, Limits(max_message_size=64 * 1024 * 1024))
        self.connection.makeConnection(self.transport)
        self.connection.dataReceived(self.wire.send_protocol_header())
        self._expect(connection.Start)
        response = f"\0{user}\0{user}".encode()
        self.send(0, connection.StartOk({"capabilities": dict(capabilities)}, "PLAIN", response, "en_US"))
        tune = self._expect(connection.Tune)
        self.send(0, connection.TuneOk(tune.channel_max, frame_max, 0))
        self.wire.set_tuned(tune.channel_max, frame_max)
        self.send(0, connection.Open("/"))
        self._expect(connection.OpenOk)
        for number in range(1, channels + 1):
            self.send(number, channel.Open())
            self._expect(channel.OpenOk)

    def _expect(self, kind: type[Any]) -> Any:
        (event,) = self.events()
        assert isinstance(event, MethodReceived), event
        assert isinstance(event.method, kind), event
        return event.method

    def events(self) -> list[Any]:
        """What has come since the last time, the turn being over."""
        self.clock.advance(0)
        data = self.transport.value()
        self.transport.clear()
        return list(self.wire.receive(data))

    def methods(self) -> list[Method]:
        """The same, for methods without content only."""
        found = self.events()
        assert all(isinstance(event, MethodReceived) for event in found), found
        return [event.method for event in found]

    # -- out ----------------------------------------------------------------------------------------------

    def octets(self, number: int, *what: Method | tuple[Any, ...]) -> bytes:
        """Methods as octets; a publish is a tuple (Publish, properties, body)."""
        parts: list[bytes] = []
        for one in what:
            if isinstance(one, tuple):
                method, properties, body = one
                parts += self.wire.send_content(number, method, properties, body)
            else:
                parts.append(self.wire.send_method(number, one))
        return b"".join(parts)

    def feed(self, data: bytes) -> None:
        """One chunk arrives."""
        self.connection.dataReceived(data)

    def send(self, number: int, *what: Method | tuple[Any, ...]) -> None:
        """Several methods and publishes in one chunk."""
        self.feed(self.octets(number, *what))

    def call(self, method: Method, number: int = 1) -> Any:
        """Send a method and give the one answer."""
        self.send(number, method)
        (answer,) = self.methods()
        return answer

    def publish(
        self,
        exchange: str,
        routing_key: str,
        *bodies: bytes,
        number: int = 1,
        mandatory: bool = False,
        properties: BasicProperties | bytes = NO_PROPERTIES,
    ) -> None:
        """Publish one message for each body, in one chunk."""
        method = basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
        self.send(number, *[(method, properties, body) for body in bodies])

    # -- shorter ------------------------------------------------------------------------------------------

    def declare(self, name: str, number: int = 1, **arguments: Any) -> Any:
        """queue.declare."""
        return self.call(queue.Declare(queue=name, **arguments), number)

    def consume(self, name: str, tag: str = "c", number: int = 1, **arguments: Any) -> None:
        """basic.consume with `nowait`."""
        self.send(number, basic.Consume(queue=name, consumer_tag=tag, nowait=True, **arguments))

    def get(self, name: str, number: int = 1, no_ack: bool = False) -> Any:
        """basic.get: the event, or None."""
        self.send(number, basic.Get(queue=name, no_ack=no_ack))
        (answer,) = self.events()
        return answer if isinstance(answer, tuple) else None

    def select_confirms(self, number: int = 1) -> None:
        """confirm.select."""
        assert isinstance(self.call(confirm.Select(), number), confirm.SelectOk)

    def select_tx(self, number: int = 1) -> None:
        """tx.select."""
        assert isinstance(self.call(tx.Select(), number), tx.SelectOk)

    def lose(self) -> None:
        """The socket is closed."""
        from twisted.internet.error import ConnectionLost
        from twisted.python.failure import Failure

        self.connection.connectionLost(Failure(ConnectionLost()))


def deliveries(events: list[Any]) -> list[tuple[str, int, bool, bytes]]:
    """The deliveries among events: consumer tag, delivery tag, redelivered, body."""
    return [(event[2], event[3], event[4], event[8]) for event in events if _is(event, DELIVER)]


def acks(events: list[Any]) -> list[tuple[str, int, bool]]:
    """The confirms among events: "ack" or "nack", delivery tag, multiple."""
    return [
        ("ack" if event[0] == ACK else "nack", event[2], event[3])
        for event in events
        if _is(event, ACK) or _is(event, NACK)
    ]


def returns(events: list[Any]) -> list[ContentEvent]:
    """The returns among events."""
    return [event for event in events if _is(event, RETURN)]


def _is(event: Any, kind: int) -> bool:
    return isinstance(event, tuple) and event[0] == kind


class ClientTestCase(SynchronousTestCase):
    """A test with a broker at `self.clock` and clients of it.

    limits, journal, strict_4 -- of the broker.
    """

    limits = BrokerLimits()
    strict_4 = False

    def make_journal(self) -> Any:
        """The journal of the broker; None for none."""
        return None

    def setUp(self) -> None:
        self.clock = Clock()
        self.broker = Broker(reactor=self.clock, limits=self.limits, users=Users(cost=2), strict_4=self.strict_4)
        self.vhost: VirtualHost = self.broker.vhosts["/"]
        self.journal = self.make_journal()
        if self.journal is not None:
            self.vhost.journal = self.journal
        self.client = Client(self.broker, self.clock)

    def other(self, **options: Any) -> Client:
        """Another client."""
        return Client(self.broker, self.clock, **options)

    def depth(self, name: str) -> int:
        """Messages ready in a queue."""
        return self.vhost.queues[name].message_count

    def assert_channel_closed(self, code: int, text: str, method: type[Method], client: Client | None = None) -> None:
        """The last thing the client heard is channel.close, because of `method`."""
        last = (client or self.client).events()[-1]
        self.assertIsInstance(last, MethodReceived)
        self.assertEqual(last.method, channel.Close(code, text, method.CLASS_ID, method.METHOD_ID))

    def assert_connection_closed(
        self, code: int, text: str, method: type[Method], client: Client | None = None
    ) -> None:
        """The last thing the client heard is connection.close, because of `method`."""
        last = (client or self.client).events()[-1]
        self.assertIsInstance(last, MethodReceived)
        self.assertEqual(last.method, connection.Close(code, text, method.CLASS_ID, method.METHOD_ID))


#: For tests that look at what basic.get gave.
GET = GET_OK
