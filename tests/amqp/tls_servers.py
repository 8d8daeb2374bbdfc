"""TLS servers for the tests of the client's TLS, right and wrong ones, on loopback."""

from __future__ import annotations

from typing import Any

from OpenSSL.crypto import X509
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol

from tests.certificates import Issued, shared_authority
from tests.scripted import ScriptedPeer, ScriptedTestCase, server_options
from txmsg.amqp import AMQPProtocol, connect
from txmsg.amqp.parameters import ConnectionParameters
from txmsg.amqp.tls import TLSOptions
from txmsg.errors import TxmsgError
from txmsg.testing.ports import free_ports

reactor: Any = installed_reactor


def only(version: int, options: Any) -> None:
    """Make Twisted's options speak one version of TLS, also one that Debian's OpenSSL would not offer by itself."""
    context = options.getContext()
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")


async def accept(peer: ScriptedPeer) -> None:
    """A broker that lets everybody in."""
    await peer.accept(mechanisms="PLAIN EXTERNAL")


class Listener(Factory):
    """A TLS (or other) server: plays `accept`, and knows what it was sent."""

    noisy = False

    def __init__(self) -> None:
        self.port = 0
        self.peers: list[ScriptedPeer] = []
        self.scripts: list[Deferred[None]] = []

    def buildProtocol(self, addr: object) -> Protocol:
        peer = _Peer(self)
        self.peers.append(peer)
        return peer

    @property
    def received(self) -> bytes:
        """Every byte that came in, after decryption."""
        return b"".join(bytes(peer.raw) for peer in self.peers)


class _Peer(ScriptedPeer):
    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener

    def connectionMade(self) -> None:
        script = Deferred.fromCoroutine(accept(self))
        script.addErrback(lambda failure: None)  # a refusal cuts the script off
        self._listener.scripts.append(script)


class Answering(Protocol):
    """A server that answers the first bytes with its own, and closes."""

    answer = b""
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        if self.answer:
            self.transport.write(self.answer)
            self.transport.loseConnection()


class TLSTestCase(ScriptedTestCase):
    """Servers and clients of the matrix."""

    timeout = 20

    def setUp(self) -> None:
        self.authority = shared_authority()

    def listen(self, issued: Issued, *, chain: list[X509] | None = None, **options: Any) -> Listener:
        """A TLS server that shows `issued`."""
        client_ca = options.pop("client_ca", None)
        made = server_options(issued, client_ca=client_ca, extraCertChain=chain or None, **options)
        return self.listen_with(made)

    def listen_with(self, options: Any) -> Listener:
        listener = Listener()
        (listener.port,) = free_ports(1)
        port = reactor.listenSSL(listener.port, listener, options, interface="127.0.0.1")

        async def stop() -> None:
            await maybeDeferred(port.stopListening)
            for peer in listener.peers:
                if not peer.is_lost:
                    peer.abort()
                    await peer.closed

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        return listener

    def listen_plain(self, protocol: type[Protocol]) -> int:
        (number,) = free_ports(1)
        factory = Factory.forProtocol(protocol)
        factory.noisy = False
        port = reactor.listenTCP(number, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return number

    def parameters(self, port: int, *, host: str = "localhost", **options: Any) -> ConnectionParameters:
        overrides = options.pop("parameters", {})
        options.setdefault("ca_file", self.authority.certificate_file)
        return ConnectionParameters(host=host, port=port, tls=TLSOptions(**options), **overrides)

    async def refused(self, parameters: ConnectionParameters, kind: type[TxmsgError]) -> TxmsgError:
        """Connect, which must fail with an error of this kind."""
        try:
            protocol = await connect(parameters)
        except TxmsgError as error:
            self.assertIs(type(error), kind, str(error))
            self.assertNotIn("\n", str(error))
            return error
        protocol.abort()
        raise self.failureException("the connection was accepted")

    async def accepted(self, target: Any) -> AMQPProtocol:
        protocol = await connect(target)
        self.assertTrue(protocol.is_open)
        self.addCleanup(protocol.when_closed)
        self.addCleanup(protocol.abort)
        return protocol
