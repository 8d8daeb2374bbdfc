"""Something else than our broker on the port, several brokers, endpoints of the user's own: C1.2, D-08, R11."""

from __future__ import annotations

from typing import Any

from twisted.internet import ssl
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Protocol

from tests.amqp.tls_servers import Answering, Listener, TLSTestCase, reactor
from tests.certificates import Issued
from tests.scripted import ScriptedPeer, server_options
from txmsg.amqp import connect
from txmsg.amqp.parameters import ConnectionParameters
from txmsg.amqp.sasl import PlainCredentials
from txmsg.errors import (
    HandshakeTimeout,
    IncompatibleProtocol,
    NoCommonMechanism,
    PeerVerificationFailed,
    TLSFailed,
    TxmsgError,
)


class WrongPeerTests(TLSTestCase):
    """A port on which something else than our broker's TLS speaks."""

    async def test_plain_server_on_the_tls_port(self) -> None:
        """D-08: RabbitMQ's plain port answers a ClientHello with its protocol header; HTTP with a page."""

        class Plain(Answering):
            answer = b"AMQP\0\0\x09\x01"

        class Web(Answering):
            answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"

        for kind in (Plain, Web):
            port = self.listen_plain(kind)
            error = await self.refused(self.parameters(port), TLSFailed)
            self.assertIn(f"localhost:{port} does not speak TLS", str(error))

    async def test_tls_server_on_the_plain_port(self) -> None:
        """D-08: the reverse, with a hint."""
        listener = self.listen(self.authority.issue("x", dns=["localhost"]))
        error = await self.refused(ConnectionParameters(port=listener.port), IncompatibleProtocol)
        self.assertIn("TLS", str(error))

        class Alerting(Answering):
            answer = b"\x15\x03\x01\x00\x02\x02\x0a"

        error = await self.refused(ConnectionParameters(port=self.listen_plain(Alerting)), IncompatibleProtocol)
        self.assertIn("amqps://", str(error))

    async def test_silent(self) -> None:
        """R11, F10: a peer that says nothing is given up."""
        port = self.listen_plain(Answering)
        error = await self.refused(self.parameters(port, parameters={"handshake_timeout": 0.2}), HandshakeTimeout)
        self.assertIn("TLS", str(error))
        # TCP is up, so it is not a connect timeout that stack_timeout ends.
        error = await self.refused(self.parameters(port, parameters={"stack_timeout": 0.2}), HandshakeTimeout)
        self.assertIn("stack_timeout", str(error))

    async def test_closes_in_the_handshake(self) -> None:
        """F5: a peer that hangs up is a loss, which may pass, and no TLS error."""

        class Hanging(Protocol):
            transport: Any

            def dataReceived(self, data: bytes) -> None:
                self.transport.loseConnection()

        port = self.listen_plain(Hanging)
        try:
            await connect(self.parameters(port))
        except TxmsgError as error:
            self.assertIn("during the TLS handshake", str(error))
            self.assertTrue(error.recoverable)
        else:
            raise self.failureException("connected")

    async def test_no_mechanism(self) -> None:
        """E-04 over TLS: the password is not sent."""
        issued = self.authority.issue("x", dns=["localhost"])

        async def external_only(peer: ScriptedPeer) -> None:
            await peer.start(mechanisms="EXTERNAL")

        server = self.serve(external_only, tls=issued)
        credentials = PlainCredentials("user", "c4n4ry")
        parameters = self.parameters(server.port, parameters={"credentials": credentials})
        await self.refused(parameters, NoCommonMechanism)
        self.assertNotIn(b"c4n4ry", bytes(server.peers[0].raw))
        for script in server._played:
            script.addErrback(lambda failure: None)


class NameTests(TLSTestCase):
    """SNI and failover."""

    def listen_named(self, issued: Issued, seen: list[bytes | None]) -> Listener:
        options = server_options(issued)
        options.getContext().set_tlsext_servername_callback(lambda connection: seen.append(connection.get_servername()))
        return self.listen_with(options)

    async def test_server_name_indication(self) -> None:
        """C1.2: the host as typed, never an IP address; server_name takes its place."""
        seen: list[bytes | None] = []
        listener = self.listen_named(self.authority.issue("x", dns=["localhost", "a.example"], ip=["127.0.0.1"]), seen)
        await self.accepted(self.parameters(listener.port))
        await self.accepted(self.parameters(listener.port, host="127.0.0.1"))
        await self.accepted(self.parameters(listener.port, server_name="a.example"))
        self.assertEqual([name for name in seen if name is not None], [b"localhost", b"a.example"])

    async def test_failover_with_swapped_certificates(self) -> None:
        """C1.2: each host is verified under its own name, not under the first one's; SNI likewise."""
        seen: list[bytes | None] = []
        by_name = self.listen_named(self.authority.issue("x", ip=["127.0.0.1"]), seen)
        by_address = self.listen_named(self.authority.issue("x", dns=["localhost"]), seen)
        targets = [self.parameters(by_name.port), self.parameters(by_address.port, host="127.0.0.1")]
        try:
            await connect(targets)
        except PeerVerificationFailed as error:
            self.assertIn("'127.0.0.1'", str(error))
            self.assertIn("'localhost'", error.__notes__[0])
        else:
            raise self.failureException("connected")
        self.assertEqual(by_name.received + by_address.received, b"")
        self.assertEqual([name for name in seen if name is not None], [b"localhost"])

    async def test_failover(self) -> None:
        """R11: after a host that is refused comes the next."""
        bad = self.listen(self.authority.issue("localhost"))
        good = self.listen(self.authority.issue("x", ip=["127.0.0.1"]))
        await self.accepted([self.parameters(bad.port), self.parameters(good.port, host="127.0.0.1")])
        self.assertEqual(bad.received, b"")

    async def test_given_endpoint(self) -> None:
        """Peers 28: a given endpoint is wrapped in TLS, and the host's name verified all the same."""
        good = self.listen(self.authority.issue("x", dns=["broker.example"]))
        parameters = self.parameters(1, host="broker.example", parameters={"credentials": PlainCredentials("u", "p")})
        protocol = await connect(parameters, endpoint=TCP4ClientEndpoint(reactor, "127.0.0.1", good.port))
        self.addCleanup(protocol.when_closed)
        self.addCleanup(protocol.abort)
        bad = self.listen(self.authority.issue("x", dns=["localhost"]))
        endpoint = HostnameEndpoint(reactor, "localhost", bad.port)
        try:
            await connect(parameters, endpoint=endpoint)
        except PeerVerificationFailed as error:
            self.assertIn("'broker.example'", str(error))
        else:
            raise self.failureException("connected")

    async def test_endpoint_that_brings_its_own_tls(self) -> None:
        """C1.2: where TLS comes with the user's endpoint, the name is checked all the same."""
        listener = self.listen(self.authority.issue("localhost"))
        trust = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(self.authority.certificate_file.read_bytes())])
        tcp = TCP4ClientEndpoint(reactor, "127.0.0.1", listener.port)
        endpoint = wrapClientTLS(ssl.optionsForClientTLS("localhost", trustRoot=trust), tcp)
        try:
            await connect(ConnectionParameters(), endpoint=endpoint)
        except PeerVerificationFailed:
            self.flushLoggedErrors()
        else:
            raise self.failureException("connected")
        self.assertEqual(listener.received, b"")
        # And a context that verifies nothing is no way around it either.
        endpoint = wrapClientTLS(ssl.CertificateOptions(), tcp)
        try:
            await connect(ConnectionParameters(), endpoint=endpoint)
        except PeerVerificationFailed as error:
            self.assertIn("was not checked", str(error))
        else:
            raise self.failureException("connected")
