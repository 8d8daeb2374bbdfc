"""A client that speaks to a broker in memory, octet by octet: for the tests of the server's half.

No socket, no reactor, no client of ours: the frames are made and read by the wire in the role of the client, so a test
can also send what no client sends.
"""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from txmsg.broker.connection.connection import BrokerConnection
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.server import Broker
from txmsg.broker.users.credentials import Users
from txmsg.wire.connection import Role, WireConnection
from txmsg.wire.events import MethodReceived
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic, channel, connection, queue
from txmsg.wire.properties import BasicProperties

__all__ = ["Peer", "PeerTransport", "make_broker"]

_M = TypeVar("_M", bound=Method)

CAPABILITIES = {
    "authentication_failure_close": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "basic.nack": True,
}


def make_broker(clock: Clock | None = None, **options: Any) -> Broker:
    """A broker on a clock, whose passwords are checked quickly; limits are given as `limits` or by their names."""
    names = set(BrokerLimits.__slots__)
    limits = {name: options.pop(name) for name in list(options) if name in names}
    options.setdefault("users", Users(cost=2))
    return Broker(reactor=clock or Clock(), limits=BrokerLimits(**limits), **options)


class PeerTransport(StringTransport):
    """The broker's end of the stream."""

    def __init__(self, host: str, port: int, own_host: str = "127.0.0.1") -> None:
        super().__init__(hostAddress=IPv4Address("TCP", own_host, 5672), peerAddress=IPv4Address("TCP", host, port))
        self.is_aborted = False

    def abortConnection(self) -> None:
        """ITCPTransport: end at once."""
        self.is_aborted = True
        self.disconnecting = True


class Peer:
    """A client of `broker`.

    connection: BrokerConnection or None -- None where the broker refused the socket.
    methods: list of (channel, method) -- what the broker sent and nobody has taken with :meth:`expect`.
    contents: list of tuples -- the content events it sent.
    raw: bytes -- everything it sent.
    """

    _next_port = 50000

    def __init__(self, broker: Broker, host: str = "127.0.0.1") -> None:
        Peer._next_port += 1
        self.broker = broker
        self.wire = WireConnection(Role.CLIENT)
        self.methods: list[tuple[int, Method]] = []
        self.contents: list[tuple[Any, ...]] = []
        self.raw = b""
        self.is_lost = False
        self.transport = PeerTransport(host, Peer._next_port)
        made: BrokerConnection | None = broker.factory.buildProtocol(self.transport.getPeer())
        self.connection = made
        if made is not None:
            made.makeConnection(self.transport)
            self.pump()

    @property
    def server(self) -> BrokerConnection:
        """The broker's side, which must be there."""
        assert self.connection is not None, "the broker refused the socket"
        return self.connection

    def pump(self) -> None:
        """Read what the broker has sent; tell it when it has closed the socket."""
        data = self.transport.value()
        self.transport.clear()
        if data:
            self.raw += data
            for event in self.wire.receive(data):
                if isinstance(event, MethodReceived):
                    self.methods.append((event.channel, event.method))
                elif type(event) is tuple:
                    self.contents.append(event)
        if self.transport.disconnecting and not self.is_lost:
            self.is_lost = True
            why = ConnectionAborted() if self.transport.is_aborted else ConnectionDone()
            self.server.connectionLost(Failure(why))

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        clock = self.broker.reactor
        clock.advance(seconds)
        self.pump()

    def lose(self) -> None:
        """The client's machine is gone."""
        self.is_lost = True
        self.server.connectionLost(Failure(ConnectionDone()))

    # -- sending -------------------------------------------------------------------------------------------

    def send_raw(self, data: bytes) -> None:
        """Send octets as they are."""
        if not self.is_lost:
            self.server.dataReceived(data)
        self.pump()

    def send(self, method: Method, number: int = 0) -> None:
        """Send a method."""
        self.send_raw(self.wire.send_method(number, method))

    def publish(
        self, body: bytes, routing_key: str, exchange: str = "", number: int = 1, mandatory: bool = False
    ) -> None:
        """Publish."""
        parts = self.wire.encode_publish(number, exchange, routing_key, mandatory, BasicProperties(), body)
        self.send_raw(b"".join(parts))

    # -- receiving -----------------------------------------------------------------------------------------

    def expect(self, kind: type[_M], number: int = 0) -> _M:
        """Take the next method, which must be a `kind`."""
        assert self.methods, f"the broker has not sent {kind.__name__}"
        found_number, found = self.methods.pop(0)
        assert isinstance(found, kind), f"{found!r} in place of {kind.__name__}"
        assert found_number == number, f"{found!r} on channel {found_number}"
        return found

    # -- the usual -----------------------------------------------------------------------------------------

    def start(self, capabilities: dict[str, bool] | None = None) -> connection.Start:
        """Send the protocol header, take connection.start."""
        self._capabilities = CAPABILITIES if capabilities is None else capabilities
        self.send_raw(self.wire.send_protocol_header())
        return self.expect(connection.Start)

    def log_in(self, response: bytes = b"\0guest\0guest", mechanism: str = "PLAIN") -> None:
        """Send start-ok."""
        self.send(
            connection.StartOk(
                client_properties={"capabilities": self._capabilities}, mechanism=mechanism, response=response
            )
        )

    def tune(self, channel_max: int | None = None, frame_max: int | None = None, heartbeat: int = 0) -> connection.Tune:
        """Take tune, send tune-ok with what was offered or what is given."""
        offered = self.expect(connection.Tune)
        channels = offered.channel_max if channel_max is None else channel_max
        frame = offered.frame_max if frame_max is None else frame_max
        self.send(connection.TuneOk(channel_max=channels, frame_max=frame, heartbeat=heartbeat))
        if 4096 <= frame <= 131072:
            self.wire.set_tuned(channels, frame)
        return offered

    def open(
        self,
        *,
        user: str = "guest",
        password: str = "guest",
        vhost: str = "/",
        heartbeat: int = 0,
        capabilities: dict[str, bool] | None = None,
        frame_max: int | None = None,
    ) -> Peer:
        """Do the whole handshake."""
        self.start(capabilities)
        self.log_in(f"\0{user}\0{password}".encode())
        self.tune(heartbeat=heartbeat, frame_max=frame_max)
        self.send(connection.Open(virtual_host=vhost))
        self.expect(connection.OpenOk)
        return self

    def open_channel(self, number: int = 1) -> int:
        """Open a channel."""
        self.send(channel.Open(), number)
        self.expect(channel.OpenOk, number)
        return number

    def declare(self, name: str, number: int = 1, **options: Any) -> queue.DeclareOk:
        """Declare a queue."""
        self.send(queue.Declare(queue=name, **options), number)
        return self.expect(queue.DeclareOk, number)

    def consume(self, name: str, number: int = 1, **options: Any) -> None:
        """Begin to consume."""
        self.send(basic.Consume(queue=name, **options), number)
        self.expect(basic.ConsumeOk, number)
