"""txmsg.amqp.endpoint and sockets: connect() on real sockets and on a clock; R11, W-88, B-09 to B-12, B-16, B-23."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from pamqp import commands, frame
from twisted.internet import error as twisted_errors
from twisted.internet import reactor as installed_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.scripted import PeerGone, ScriptedPeer, ScriptedTestCase
from txmsg.amqp import AMQPProtocol, connect
from txmsg.amqp.parameters import ConnectionParameters
from txmsg.amqp.sasl import PlainCredentials
from txmsg.amqp.sockets import set_socket_options
from txmsg.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectFailed,
    ConnectTimeout,
    HandshakeTimeout,
    TxmsgError,
    VirtualHostRefused,
)
from txmsg.testing.ports import free_ports

reactor: Any = installed_reactor
USER = PlainCredentials("user", "password")


async def accept(peer: ScriptedPeer) -> None:
    await peer.accept()


async def refuse_login(peer: ScriptedPeer) -> None:
    await peer.start()
    await peer.close(403, "ACCESS_REFUSED")


@implementer(IStreamClientEndpoint)
class FakeEndpoint:
    """An endpoint whose outcomes a test decides; it keeps what it was asked."""

    def __init__(self, *outcomes: BaseException | None) -> None:
        self.outcomes = list(outcomes)
        self.factories: list[IProtocolFactory] = []
        self.waiting: list[Deferred[Any]] = []
        self.cancelled = 0
        self.peer: Any = None
        self.protocols: list[AMQPProtocol] = []
        self.transports: list[StringTransport] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Fail with the next outcome, connect for None, wait when there is none left."""
        self.factories.append(protocolFactory)
        if not self.outcomes:
            self.waiting.append(Deferred(self._cancel))
            return self.waiting[-1]
        outcome = self.outcomes.pop(0)
        return fail(outcome) if outcome is not None else succeed(self.build())

    def _cancel(self, deferred: Deferred[Any]) -> None:
        self.cancelled += 1
        deferred.errback(twisted_errors.ConnectingCancelledError(None))

    def build(self) -> AMQPProtocol:
        """Make the protocol and its transport, as an endpoint does."""
        protocol: Any = self.factories[-1].buildProtocol(None)  # type: ignore[arg-type]
        transport = StringTransport(peerAddress=self.peer)
        self.protocols.append(protocol)
        self.transports.append(transport)
        protocol.makeConnection(transport)
        return protocol  # type: ignore[no-any-return]


class ClockTests(SynchronousTestCase):
    """Time limits and attempts, without sockets and without waiting."""

    def setUp(self) -> None:
        self.clock = Clock()

    def connect(self, endpoint: FakeEndpoint, **parameters: Any) -> Deferred[AMQPProtocol]:
        return connect(ConnectionParameters(**parameters), reactor=self.clock, endpoint=endpoint)

    def error(self, connecting: Deferred[AMQPProtocol], kind: type[BaseException]) -> BaseException:
        failure = self.failureResultOf(connecting)
        self.assertIs(type(failure.value), kind, str(failure.value))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        error: BaseException = failure.value
        return error

    def test_connect_timeout(self) -> None:
        """B-11, R11: name lookup and TCP together get connect_timeout."""
        endpoint = FakeEndpoint()
        connecting = self.connect(endpoint, connect_timeout=3)
        self.clock.advance(2.9)
        self.assertNoResult(connecting)
        self.clock.advance(0.1)
        error = self.error(connecting, ConnectTimeout)
        self.assertIn("connect_timeout (3 s)", str(error))
        self.assertEqual(endpoint.cancelled, 1)

    def test_no_connect_timeout(self) -> None:
        """B-11, B-12: None is no limit."""
        connecting = self.connect(FakeEndpoint(), connect_timeout=None, stack_timeout=None)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        connecting.addErrback(lambda failure: None)
        connecting.cancel()

    def test_stack_timeout_in_tcp(self) -> None:
        """B-12: stack_timeout ends an attempt that hangs in TCP."""
        connecting = self.connect(FakeEndpoint(), connect_timeout=None, stack_timeout=4)
        self.clock.advance(4)
        self.assertIn("stack_timeout (4 s)", str(self.error(connecting, ConnectTimeout)))

    def test_stack_timeout_in_the_handshake(self) -> None:
        """B-12: and one that hangs later, with the socket dropped."""
        endpoint = FakeEndpoint(None)
        connecting = self.connect(endpoint, stack_timeout=4, handshake_timeout=100)
        self.clock.advance(4)
        self.assertIn("stack_timeout (4 s)", str(self.error_of_lost(connecting, endpoint, HandshakeTimeout)))

    def test_default_is_bounded(self) -> None:
        """R11: without any setting a silent host costs no more than 10 s for TCP, 10 s for a stage, 15 s in all."""
        connecting = self.connect(FakeEndpoint())
        self.clock.advance(10)
        self.error(connecting, ConnectTimeout)
        endpoint = FakeEndpoint(None)
        connecting = self.connect(endpoint)
        self.clock.advance(10)
        self.error_of_lost(connecting, endpoint, HandshakeTimeout)

    def error_of_lost(self, connecting: Deferred[AMQPProtocol], endpoint: FakeEndpoint, kind: Any) -> BaseException:
        self.assertTrue(endpoint.transports[-1].disconnecting or endpoint.transports[-1].disconnected)
        endpoint.protocols[-1].connectionLost(Failure(twisted_errors.ConnectionAborted()))
        return self.error(connecting, kind)

    def test_cancel_in_tcp(self) -> None:
        """R28: cancelling stops the attempt, at once, with CancelledError and nothing left."""
        endpoint = FakeEndpoint()
        connecting = self.connect(endpoint)
        connecting.cancel()
        self.error(connecting, CancelledError)
        self.assertEqual(endpoint.cancelled, 1)

    def test_cancel_in_the_handshake(self) -> None:
        """R28: also when there is a socket already: it is dropped."""
        endpoint = FakeEndpoint(None)
        connecting = self.connect(endpoint)
        self.assertNoResult(connecting)
        connecting.cancel()
        self.error_of_lost(connecting, endpoint, CancelledError)

    def test_cancel_between_attempts(self) -> None:
        """R28: also while waiting for the next attempt."""
        endpoint = FakeEndpoint(twisted_errors.ConnectionRefusedError())
        connecting = self.connect(endpoint, connection_attempts=2)
        connecting.cancel()
        self.error(connecting, CancelledError)
        self.assertEqual(len(endpoint.factories), 1)

    def test_endpoint_that_ignores_cancelling(self) -> None:
        """R28: a connection that comes after the end is dropped, not leaked."""

        class Deaf(FakeEndpoint):
            def _cancel(self, deferred: Deferred[Any]) -> None:
                deferred.callback(self.build())

        endpoint = Deaf()
        connecting = self.connect(endpoint)
        connecting.cancel()
        self.assertTrue(endpoint.transports[-1].disconnecting or endpoint.transports[-1].disconnected)
        endpoint.protocols[-1].connectionLost(Failure(twisted_errors.ConnectionAborted()))
        self.error(connecting, CancelledError)

    def test_attempts(self) -> None:
        """B-09, B-10, W-88, J-22: as many attempts as asked for, retry_delay between them and none after the last."""
        refused = [twisted_errors.ConnectionRefusedError() for _ in range(3)]
        endpoint = FakeEndpoint(*refused)
        connecting = self.connect(endpoint, connection_attempts=3, retry_delay=2)
        for attempts in (1, 2):
            self.assertEqual(len(endpoint.factories), attempts)
            self.clock.advance(1.9)
            self.assertEqual(len(endpoint.factories), attempts)
            self.clock.advance(0.1)
        self.assertEqual(len(endpoint.factories), 3)
        self.error(connecting, ConnectFailed)

    def test_attempts_after_timeouts(self) -> None:
        """B-09: a connect timeout is tried again too."""
        endpoint = FakeEndpoint()
        connecting = self.connect(endpoint, connection_attempts=2, connect_timeout=3, retry_delay=0)
        self.clock.advance(3)
        self.clock.advance(0)
        self.assertEqual(len(endpoint.waiting), 2)
        self.clock.advance(3)
        self.error(connecting, ConnectTimeout)

    def test_no_attempts_after_the_handshake_began(self) -> None:
        """B-09, R12, U-15: only what never connected is tried again; a login is not tried in a loop."""
        endpoint = FakeEndpoint(None)
        connecting = self.connect(endpoint, connection_attempts=5, retry_delay=0, handshake_timeout=1)
        self.clock.advance(1)
        self.error_of_lost(connecting, endpoint, HandshakeTimeout)
        self.clock.advance(10)
        self.assertEqual(len(endpoint.factories), 1)

    def test_errors_are_typed(self) -> None:
        """Every error of an endpoint becomes ours, in one line that says where."""
        cases: list[tuple[Exception, type[ConnectFailed], str]] = [
            (twisted_errors.ConnectionRefusedError(), ConnectFailed, "refused the connection"),
            (twisted_errors.TimeoutError(), ConnectTimeout, "did not answer in time"),
            (TimeoutError("x"), ConnectTimeout, "did not answer in time"),
            (twisted_errors.DNSLookupError("x"), ConnectFailed, "unknown host"),
            (twisted_errors.NoRouteError(101), ConnectFailed, "cannot connect"),
            (OSError(13, "Permission denied"), ConnectFailed, "Permission denied"),
            (LookupError(), ConnectFailed, "LookupError"),
            (ValueError("proxy\nsays no"), ConnectFailed, "proxy\\nsays no"),
        ]
        for given, kind, says in cases:
            error = self.error(self.connect(FakeEndpoint(given)), kind)
            self.assertIn(says, str(error))
            self.assertNotIn("\n", str(error))
            self.assertIs(error.__cause__, given)
            assert isinstance(error, TxmsgError)
            self.assertTrue(error.recoverable)

    def test_endpoint_that_raises(self) -> None:
        """Never raises: an endpoint's exception is the Deferred's."""

        class Raising(FakeEndpoint):
            def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
                raise OSError("no")

        self.error(self.connect(Raising()), ConnectFailed)

    def test_endpoint_and_several_targets(self) -> None:
        """An endpoint goes to one place."""
        targets = ["amqp://localhost", "amqp://127.0.0.1"]
        self.error(connect(targets, reactor=self.clock, endpoint=FakeEndpoint()), ConfigurationError)

    def test_bad_targets(self) -> None:
        """W-38: Anything that is no target fails the Deferred, before a socket is made."""
        for target in (None, 5, b"amqp://h", [], ["amqp://localhost", None], "", "localhost", [["amqp://localhost"]]):
            memory = MemoryReactorClock()
            connecting = connect(target, reactor=memory)  # type: ignore[arg-type]
            self.assertIsInstance(self.failureResultOf(connecting).value, ConfigurationError, repr(target))
            self.assertEqual(memory.tcpClients, [])

    def test_password_in_the_clear(self) -> None:
        """C1.8: refused before there is a socket."""
        for target in ("amqp://u:p@broker.example", "amqp://u:p@10.0.0.1", "amqp://u:p@my_broker"):
            memory = MemoryReactorClock()
            error = self.failureResultOf(connect(target, reactor=memory)).value
            self.assertIsInstance(error, ConfigurationError)
            self.assertIn("amqps://", str(error))
            self.assertEqual(memory.tcpClients, [])

    def test_peer_that_is_elsewhere(self) -> None:
        """C1.8: an endpoint that leads away from this machine, whatever `host` says: no password without TLS."""
        start = frame.marshal(commands.Connection.Start(0, 9, {}, "PLAIN", "en_US"), 0)
        for address, is_sent in (("10.0.0.9", False), ("127.0.0.1", True)):
            endpoint = FakeEndpoint(None)
            endpoint.peer = IPv4Address("TCP", address, 5672)
            connecting = self.connect(endpoint, credentials=PlainCredentials("user", "c4n4ry"))
            endpoint.protocols[0].dataReceived(start)
            self.assertEqual(b"c4n4ry" in endpoint.transports[0].value(), is_sent, address)
            if is_sent:
                connecting.addErrback(lambda failure: None)
                connecting.cancel()
            else:
                error = self.error_of_lost(connecting, endpoint, ConfigurationError)
                self.assertIn("'10.0.0.9'", str(error))

    def test_allowed_in_the_clear(self) -> None:
        """C1.8: unless it is allowed; a name with an underscore is connected to as well."""
        memory = MemoryReactorClock()
        connecting = connect("amqp://u:p@my_broker:7?allow_plaintext_auth=true", reactor=memory)
        self.assertEqual(memory.tcpClients[0][:2], ("my_broker", 7))
        connecting.addErrback(lambda failure: None)
        connecting.cancel()


class SocketTests(ScriptedTestCase):
    """Real sockets on loopback."""

    timeout = 20

    async def opened(self, connecting: Deferred[AMQPProtocol]) -> AMQPProtocol:
        protocol = await connecting
        self.assertTrue(protocol.is_open)
        self.addCleanup(protocol.when_closed)
        self.addCleanup(protocol.abort)
        return protocol

    async def refused(self, connecting: Deferred[Any], kind: type[BaseException]) -> BaseException:
        try:
            await connecting
        except BaseException as error:
            self.assertIs(type(error), kind, str(error))
            return error
        raise self.failureException("connected")

    async def test_url_and_parameters(self) -> None:
        """C-01: the two ways to say where."""
        server = self.serve(accept)
        protocol = await self.opened(connect(f"amqp://user:password@localhost:{server.port}/v"))
        self.assertEqual((protocol.parameters.virtual_host, protocol.parameters.port), ("v", server.port))
        parameters = ConnectionParameters(port=server.port, credentials=USER)
        protocol = await self.opened(connect(parameters, reactor=reactor))
        self.assertIs(protocol.parameters, parameters)

    async def test_two_connections_from_one_object(self) -> None:
        """B-21: what one connection negotiated does not reach the other."""

        async def modest(peer: ScriptedPeer) -> None:
            await peer.accept(channel_max=7, frame_max=8192, heartbeat=5)

        server = self.serve(modest, accept)
        parameters = ConnectionParameters(port=server.port)
        before = repr(parameters)
        first = await self.opened(connect(parameters))
        second = await self.opened(connect(parameters))
        assert first.negotiated is not None
        assert second.negotiated is not None
        self.assertEqual((first.negotiated.channel_max, first.negotiated.heartbeat), (7, 5))
        self.assertEqual((second.negotiated.channel_max, second.negotiated.heartbeat), (2047, 0))
        self.assertEqual((repr(parameters), parameters.channel_max), (before, 2047))

    async def test_refused_port(self) -> None:
        """R11: nothing listens there; host and port are in the text."""
        (port,) = free_ports(1)
        error = await self.refused(connect(ConnectionParameters(port=port)), ConnectFailed)
        self.assertIn(f"localhost:{port} refused", str(error))

    async def test_unknown_host(self) -> None:
        """R11: no such name."""
        error = await self.refused(connect("amqp://u:p@nosuch.invalid?allow_plaintext_auth=true"), ConnectFailed)
        self.assertIn("unknown host", str(error))
        self.assertIn("'nosuch.invalid'", str(error))

    async def test_refused_login(self) -> None:
        """R12: is final: neither tried again nor at the next host."""
        server, other = self.serve(refuse_login), self.serve(accept)
        first = ConnectionParameters(port=server.port, connection_attempts=3, retry_delay=0)
        error = await self.refused(connect([first, ConnectionParameters(port=other.port)]), AuthenticationFailed)
        self.assertIn("ACCESS_REFUSED", str(error))
        await server.played()
        self.assertEqual((len(server.peers), len(other.peers)), (1, 0))

    async def test_refused_virtual_host(self) -> None:
        """R12: so is a virtual host that is not there."""

        async def no_vhost(peer: ScriptedPeer) -> None:
            await peer.start()
            peer.send(commands.Connection.Tune(0, 131072, 0))
            await peer.expect(commands.Connection.TuneOk, 0)
            await peer.expect(commands.Connection.Open, 0)
            await peer.close(530, "NOT_ALLOWED - vhost nope not found")

        server = self.serve(no_vhost)
        error = await self.refused(connect(f"amqp://localhost:{server.port}/nope"), VirtualHostRefused)
        self.assertIn("vhost nope not found", str(error))
        await server.played()

    async def test_next_host(self) -> None:
        """B-23, F10, U-15, X-07, J-22, peers 25: the first that works is taken; of those before nothing is left."""

        class Web(Protocol):
            transport: Any

            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                self.transport.loseConnection()

        (closed,) = free_ports(1)
        (web,) = free_ports(1)
        factory = Factory.forProtocol(Web)
        factory.noisy = False
        listening = reactor.listenTCP(web, factory, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        server = self.serve(accept)
        targets = [f"amqp://localhost:{port}" for port in (closed, web, server.port)]
        protocol = await self.opened(connect(targets))
        self.assertEqual(protocol.parameters.port, server.port)

    async def test_no_host_left(self) -> None:
        """B-23: the last error, the others as notes."""
        first, second = free_ports(2)
        error = await self.refused(
            connect([f"amqp://localhost:{first}", ConnectionParameters(port=second)]), ConnectFailed
        )
        self.assertIn(str(second), str(error))
        self.assertIn(str(first), error.__notes__[0])

    async def test_comes_up_late(self) -> None:
        """B-09: a broker that is not there yet at the first attempt."""
        (port,) = free_ports(1)
        connecting = connect(ConnectionParameters(port=port, connection_attempts=20, retry_delay=0.05))

        class Accepting(ScriptedPeer):
            def connectionMade(self) -> None:
                Deferred.fromCoroutine(accept(self)).addErrback(lambda failure: None)

        factory = Factory.forProtocol(Accepting)
        factory.noisy = False

        def listen() -> None:
            listening = reactor.listenTCP(port, factory, interface="127.0.0.1")
            self.addCleanup(listening.stopListening)

        reactor.callLater(0.15, listen)
        await self.opened(connecting)

    async def test_unix_socket(self) -> None:
        """Peers 28, C1.8: any stream; a unix socket is local, so a password may go over it."""
        path = self.mktemp()

        class Accepting(ScriptedPeer):
            def connectionMade(self) -> None:
                Deferred.fromCoroutine(accept(self)).addErrback(lambda failure: None)

        factory = Factory.forProtocol(Accepting)
        factory.noisy = False
        listening = reactor.listenUNIX(path, factory)
        self.addCleanup(listening.stopListening)
        parameters = ConnectionParameters(host="broker.example", credentials=USER, tcp_options={"TCP_KEEPIDLE": 5})
        protocol = await self.opened(connect(parameters, endpoint=UNIXClientEndpoint(reactor, path)))
        protocol.abort()
        await protocol.when_closed()
        error = await self.refused(connect(parameters, endpoint=UNIXClientEndpoint(reactor, path + "x")), ConnectFailed)
        self.assertIn("UNIXClientEndpoint", str(error))

    async def test_given_endpoint(self) -> None:
        """Peers 5, 28: a wrapped endpoint of the user's own."""
        server = self.serve(accept)

        @implementer(IStreamClientEndpoint)
        class Wrapped:
            def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
                return TCP4ClientEndpoint(reactor, "127.0.0.1", server.port).connect(protocolFactory)

        await self.opened(connect(ConnectionParameters(port=1), endpoint=Wrapped()))

    async def test_cancel_everywhere(self) -> None:
        """R28: cancelled at any moment of a real connect: CancelledError, and trial finds nothing left."""

        async def slow(peer: ScriptedPeer) -> None:
            with contextlib.suppress(PeerGone):
                while True:
                    await peer.next()

        server = self.serve(slow)
        for moment in (0.0, 0.001, 0.003, 0.01, 0.05):
            connecting = connect(f"amqp://localhost:{server.port}")
            reactor.callLater(moment, connecting.cancel)
            await self.refused(connecting, CancelledError)

    async def test_tcp_options(self) -> None:
        """B-16: they are on the socket, also below TLS; what cannot be set does not cost the connection."""
        server = self.serve(accept)
        options = {"TCP_KEEPIDLE": 31, "TCP_KEEPINTVL": 7, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 4321}
        protocol = await self.opened(connect(ConnectionParameters(port=server.port, tcp_options=options)))
        handle = protocol.transport.getHandle()  # type: ignore[union-attr]
        for name, value in options.items():
            self.assertEqual(handle.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)), value, name)
        self.assertTrue(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        self.assertTrue(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        self.patch(socket, "TCP_KEEPCNT", None)
        set_socket_options(protocol.transport, {"TCP_KEEPCNT": 9, "TCP_KEEPIDLE": 2**31 - 1})
        self.assertEqual(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), 31)

    def test_tcp_options_elsewhere(self) -> None:
        """B-16: a stream that is not TCP has none."""
        set_socket_options(StringTransport(), {"TCP_KEEPIDLE": 5})
        set_socket_options(None, {"TCP_KEEPIDLE": 5})
        set_socket_options(None, None)
