"""txmsg.amqp.connect() and sockets on real sockets: R11, R12, B-09, B-16, B-21, B-23, unix sockets, cancelling."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from pamqp import commands
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from tests.scripted import PeerGone, ScriptedPeer, ScriptedTestCase
from txmsg.amqp import AMQPProtocol, connect
from txmsg.amqp.parameters import ConnectionParameters
from txmsg.amqp.sasl import PlainCredentials
from txmsg.amqp.sockets import set_socket_options
from txmsg.errors import AuthenticationFailed, ConnectFailed, VirtualHostRefused
from txmsg.testing.ports import free_ports

reactor: Any = installed_reactor
USER = PlainCredentials("user", "password")


async def accept(peer: ScriptedPeer) -> None:
    await peer.accept()


async def refuse_login(peer: ScriptedPeer) -> None:
    await peer.start()
    await peer.close(403, "ACCESS_REFUSED")


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
        """kombu B26; B-16: they are on the socket, also below TLS; what cannot be set does not cost the connection."""
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
