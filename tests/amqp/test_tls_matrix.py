"""Which servers a client takes, against real TLS servers on loopback: C1.1 to C1.5, D-02, D-06, D-08.

Every odd server is tried with both checks of the server's certificate, and with each of them alone: one that is
taken out by mistake must not be hidden by the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

import twisted
from tests.amqp.tls_servers import Listener, TLSTestCase, only, reactor
from tests.certificates import ODD_SERVERS, ODD_SERVERS_BY_ADDRESS, Authority, Issued
from tests.scripted import server_options
from txmsg.amqp import client, tls_verify
from txmsg.amqp.parameters import ConnectionParameters
from txmsg.amqp.tls import TLSOptions
from txmsg.errors import PeerVerificationFailed, TLSFailed

#: The versions of Twisted whose own check lets certificates without a usable name pass.
HAS_THE_HOLE = (26, 4) <= tuple(int(part) for part in twisted.__version__.split(".")[:2]) <= (26, 10)

#: What each odd server's refusal has to say.
CAUSES = {
    "wrong name": "is for other.example",
    "ip certificate asked by name": "is for 127.0.0.1",
    "no SAN, right common name": "no names",
    "no SAN, wrong common name": "no names",
    "e-mail SAN only": "no host names",
    "URI SAN only": "no host names",
    "wildcard for everything": "is for *",
    "wildcard for a top level": "is for *.evil",
    "wildcard under the host": "is for *.localhost",
    "another host and a malformed wildcard": "is for other.example",
    "expired": "expired on 20",
    "not yet valid": "is not valid before 20",
    "unknown authority": "unknown CA",
    "self-signed": "self-signed",
    "issued by a leaf": "not a CA",
    "for clients only": "is not meant for servers",
    "DNS certificate asked by address": "is for localhost",
    "address as a DNS name": "is for 127.0.0.1",
    "another address": "is for 127.0.0.2",
    "no SAN": "no names",
}

#: Those that Twisted takes where it has the hole (reliability: "ACCEPTED").
TAKEN_BY_TWISTED = {
    "no SAN, right common name",
    "no SAN, wrong common name",
    "e-mail SAN only",
    "wildcard for everything",
    "wildcard for a top level",
    "wildcard under the host",
    "another host and a malformed wildcard",
}


def issuer_chain(name: str, issued: Issued) -> list[X509]:
    """What has to be sent with the certificate, where its issuer is not the authority."""
    if name != "issued by a leaf":
        return []
    text = issued.certificate_file.read_bytes()
    second = text[text.index(b"-----BEGIN", 1) :]
    return [ssl.Certificate.loadPEM(second).original]


def plain_twisted(options: TLSOptions, hostname: str) -> Any:
    """`client_connection_creator` without our callback: what Twisted alone would do."""
    return ssl.optionsForClientTLS(hostname, trustRoot=options._load(warn=False).trust_root)


class RefusedTests(TLSTestCase):
    """C1.1, C1.2, D-08: certificates that must not be taken, by both checks and by each of them alone."""

    async def check(self, name: str, make: Callable[[Authority], Issued], host: str, way: str) -> None:
        issued = make(self.authority)
        listener = self.listen(issued, chain=issuer_chain(name, issued))
        if way == "check after the handshake":
            self.patch(TLSOptions, "client_connection_creator", plain_twisted)
        elif way == "check in the handshake":
            self.patch(client, "verify_peer", lambda transport, host: None)
        error = await self.refused(self.parameters(listener.port, host=host), PeerVerificationFailed)
        self.assertIn(repr(host), str(error))
        self.assertFalse(error.recoverable)
        if way != "check after the handshake":
            self.assertIn(CAUSES[name], str(error))
        self.assertEqual(listener.received, b"", "AMQP was spoken with a server that was not verified")
        # Twisted logs what its own check swallows.
        self.flushLoggedErrors()


def _add_rows() -> None:
    """Make a test method for each row and way; a failure then names both."""
    rows = [(name, make, "localhost") for name, make in ODD_SERVERS.items()]
    rows += [(name, make, "127.0.0.1") for name, make in ODD_SERVERS_BY_ADDRESS.items()]
    for name, make, host in rows:
        for way in ("both checks", "check after the handshake", "check in the handshake"):

            async def test(
                self: RefusedTests, name: Any = name, make: Any = make, host: Any = host, way: Any = way
            ) -> None:
                await self.check(name, make, host, way)

            test.__doc__ = f"C1.2: {name} ({way})."
            words = f"{name} {way}".replace(",", "").replace("-", " ").split()
            test.__name__ = "test_" + "_".join(words)
            setattr(RefusedTests, test.__name__, lambda self, test=test: Deferred.fromCoroutine(test(self)))


_add_rows()


class FailingCheckTests(TLSTestCase):
    """C1.2: an exception in the check is no agreement."""

    async def test_exception_in_the_callback(self) -> None:
        """C1.2: nor in OpenSSL's callback, for a right certificate as for a wrong one."""

        def raising(*args: object) -> None:
            raise LookupError("nobody thought of this")

        right = self.listen(self.authority.issue("x", dns=["localhost"]))
        wrong = self.listen(self.authority.self_signed("localhost", dns=["localhost"]))
        self.patch(tls_verify, "_Peer", raising)
        self.patch(tls_verify, "_chain_problem", raising)
        self.patch(tls_verify, "_is_checker_sound", True)
        for listener in (right, wrong):
            error = await self.refused(self.parameters(listener.port), PeerVerificationFailed)
            self.assertIn("could not be checked (LookupError)", str(error))
            self.assertEqual(listener.received, b"")


class AcceptedTests(TLSTestCase):
    """What must work."""

    async def test_name(self) -> None:
        """C1.1, D-06: the right DNS name."""
        listener = self.listen(self.authority.issue("x", dns=["localhost"]))
        protocol = await self.accepted(self.parameters(listener.port))
        self.assertTrue(listener.received.startswith(b"AMQP\0\0\x09\x01"))
        self.assertIn("localhost", repr(protocol))

    async def test_name_among_several(self) -> None:
        """C1.1: one of several names, in any case."""
        listener = self.listen(self.authority.issue("x", dns=["other.example", "LocalHost"], email=["a@b.example"]))
        await self.accepted(self.parameters(listener.port))

    async def test_address(self) -> None:
        """C1.2: an IP address is checked as one."""
        listener = self.listen(self.authority.issue("x", ip=["127.0.0.1"]))
        await self.accepted(self.parameters(listener.port, host="127.0.0.1"))

    async def test_server_name(self) -> None:
        """C-17: the name to verify can be another than the host's, and then only that counts."""
        listener = self.listen(self.authority.issue("x", dns=["broker.example"]))
        await self.accepted(self.parameters(listener.port, server_name="broker.example"))
        await self.accepted(self.parameters(listener.port, server_name="broker.example."))
        await self.refused(self.parameters(listener.port, server_name="localhost"), PeerVerificationFailed)

    async def test_wildcard(self) -> None:
        """C1.2: a well-formed wildcard is good for one label."""
        listener = self.listen(self.authority.issue("x", dns=["*.broker.example"]))
        await self.accepted(self.parameters(listener.port, server_name="a.broker.example"))
        for name in ("broker.example", "a.b.broker.example"):
            await self.refused(self.parameters(listener.port, server_name=name), PeerVerificationFailed)

    async def test_url(self) -> None:
        """D-02, C-17: an amqps:// URL is verified in the same way."""
        good = self.listen(self.authority.issue("x", dns=["localhost"]))
        bad = self.listen(self.authority.issue("localhost"))
        query = f"cacertfile={self.authority.certificate_file}"
        await self.accepted(f"amqps://u:p@localhost:{good.port}/v?{query}")
        url = f"amqps://u:p@localhost:{bad.port}/v?{query}"
        await self.refused(ConnectionParameters.from_url(url), PeerVerificationFailed)

    async def test_several_authorities(self) -> None:
        """C1.1: several CA files, CA data, and Twisted's own trust root objects."""
        listener = self.listen(self.authority.issue("x", dns=["localhost"]))
        other = Authority("another")
        await self.accepted(
            self.parameters(listener.port, ca_file=[other.certificate_file, self.authority.certificate_file])
        )
        pem = self.authority.certificate_file.read_bytes()
        await self.accepted(self.parameters(listener.port, ca_file=None, ca_data=pem))
        root = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(pem)])
        await self.accepted(self.parameters(listener.port, ca_file=None, trust_root=root))
        await self.accepted(self.parameters(listener.port, ca_file=None, trust_root=ssl.Certificate.loadPEM(pem)))
        await self.refused(self.parameters(listener.port, ca_file=other.certificate_file), PeerVerificationFailed)

    async def test_platform_trust(self) -> None:
        """C1.1: without a CA it is the platform's, never "no check"."""
        listener = self.listen(self.authority.issue("x", dns=["localhost"]))
        error = await self.refused(self.parameters(listener.port, ca_file=None), PeerVerificationFailed)
        self.assertIn("unknown CA", str(error))


class VersionTests(TLSTestCase):
    """C1.3: TLS 1.2 and later, on every path."""

    def listen_version(self, version: int) -> Listener:
        options = server_options(
            self.authority.issue("x", dns=["localhost"]), insecurelyLowerMinimumTo=ssl.TLSVersion.TLSv1_0
        )
        only(version, options)
        return self.listen_with(options)

    async def test_old(self) -> None:
        """C1.3: TLS 1.0 and 1.1 are refused, from a URL as from options."""
        for version in (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION):
            listener = self.listen_version(version)
            error = await self.refused(self.parameters(listener.port), TLSFailed)
            self.assertIn("TLS 1.2 or later", str(error))
            url = f"amqps://u:p@localhost:{listener.port}?cacertfile={self.authority.certificate_file}"
            await self.refused(ConnectionParameters.from_url(url), TLSFailed)
            self.assertEqual(listener.received, b"")

    async def test_the_old_server_works(self) -> None:
        """The servers of the test above do speak these versions: with a client that takes them."""
        for version in (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION):
            listener = self.listen_version(version)
            spoken: Deferred[str] = Deferred()

            class Client(Protocol):
                transport: Any

                def connectionMade(self) -> None:
                    self.transport.write(b"AMQP\0\0\x09\x01")

                def dataReceived(self, data: bytes, spoken: Deferred[str] = spoken) -> None:
                    spoken.callback(self.transport.getHandle().get_protocol_version_name())
                    self.transport.loseConnection()

            options = ssl.CertificateOptions(insecurelyLowerMinimumTo=ssl.TLSVersion.TLSv1_0)
            only(version, options)
            endpoint = wrapClientTLS(options, TCP4ClientEndpoint(reactor, "127.0.0.1", listener.port))
            await endpoint.connect(Factory.forProtocol(Client))
            self.assertEqual(await spoken, "TLSv1" if version == SSL.TLS1_VERSION else "TLSv1.1")

    async def test_new(self) -> None:
        """C1.3: TLS 1.2 and 1.3 work; the minimum can be raised."""
        for version, name in ((SSL.TLS1_2_VERSION, "TLSv1.2"), (SSL.TLS1_3_VERSION, "TLSv1.3")):
            listener = self.listen_version(version)
            protocol = await self.accepted(self.parameters(listener.port))
            handle = protocol.transport.getHandle()  # type: ignore[union-attr]
            self.assertEqual(handle.get_protocol_version_name(), name)
        twelve = self.listen_version(SSL.TLS1_2_VERSION)
        error = await self.refused(self.parameters(twelve.port, minimum_version="TLSv1.3"), TLSFailed)
        self.assertIn("no TLS version in common", str(error))

    async def test_options_of_the_context(self) -> None:
        """C1.4: compression and renegotiation are off, and the peer is always verified."""
        options = 0
        real = SSL.Context.set_options

        def set_options(context: SSL.Context, more: int) -> int:
            nonlocal options
            options |= more
            return real(context, more)

        listener = self.listen(self.authority.issue("x", dns=["localhost"]))
        self.patch(SSL.Context, "set_options", set_options)
        protocol = await self.accepted(self.parameters(listener.port))
        connection = protocol.transport.getHandle()  # type: ignore[union-attr]
        for name in ("OP_NO_COMPRESSION", "OP_NO_RENEGOTIATION", "OP_NO_SSLv3", "OP_NO_TLSv1", "OP_NO_TLSv1_1"):
            self.assertTrue(options & getattr(SSL, name), name)
        self.assertEqual(connection.get_verify_mode(), SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)


class TheHoleTests(TLSTestCase):
    """reliability 0.1: what Twisted alone does, so that the reason for the second check is seen in the tests."""

    async def test_twisted_alone(self) -> None:
        """Twisted 26.4 to 26.10 take a server without a usable name; others, and all else, are refused."""
        trust = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(self.authority.certificate_file.read_bytes())])
        for name, make in ODD_SERVERS.items():
            issued = make(self.authority)
            listener = self.listen(issued, chain=issuer_chain(name, issued))
            endpoint = wrapClientTLS(
                ssl.optionsForClientTLS("localhost", trustRoot=trust),
                TCP4ClientEndpoint(reactor, "127.0.0.1", listener.port),
            )
            outcome: Deferred[bool] = Deferred()
            await endpoint.connect(_OutcomeFactory(outcome))
            self.assertEqual(await outcome, HAS_THE_HOLE and name in TAKEN_BY_TWISTED, name)
        self.flushLoggedErrors()


class _Outcome(Protocol):
    """Says whether a server took our bytes and answered."""

    transport: Any

    def __init__(self, outcome: Deferred[bool]) -> None:
        self.outcome = outcome

    def connectionMade(self) -> None:
        self.transport.write(b"AMQP\0\0\x09\x01")

    def dataReceived(self, data: bytes) -> None:
        self.transport.loseConnection()
        self.answer(True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.answer(False)

    def answer(self, value: bool) -> None:
        if not self.outcome.called:
            self.outcome.callback(value)


class _OutcomeFactory(Factory):
    noisy = False

    def __init__(self, outcome: Deferred[bool]) -> None:
        self.outcome = outcome

    def buildProtocol(self, addr: object) -> Protocol:
        return _Outcome(self.outcome)
