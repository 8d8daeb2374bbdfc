"""AMQClient over TLS, which txamqp never had: AMQEndpoint verifies, any other endpoint does what it is told."""

from __future__ import annotations

from typing import Any
from unittest import mock

from OpenSSL import SSL
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory
from twisted.protocols import policies
from zope.interface import implementer

from tests.certificates import shared_authority
from tests.compat.txamqp.cases import OverBroker, OverRabbitMQ, TxAMQPCase, reactor, settle
from txmsg.amqp import TLSOptions
from txmsg.broker.tls import ServerTLS
from txmsg.compat.txamqp.client import Closed, TwistedDelegate
from txmsg.compat.txamqp.endpoint import AMQEndpoint
from txmsg.compat.txamqp.factory import AMQFactory
from txmsg.compat.txamqp.protocol import AMQClient


class TLSCases(TxAMQPCase):
    async def tls_port(self) -> int:
        """The broker's port for TLS."""
        if isinstance(self, OverBroker):
            await self.node.listen_with_tls()
        return int(self.node.tls_port)

    async def used(self, client: AMQClient) -> None:
        """Work with a client, and close it."""
        await (await self.tx_channel(client)).tx_select()
        await client.close()

    async def test_endpoint(self) -> None:
        """A server that its CA vouches for under the name of the URI; with no CA of its own it is refused."""
        port = await self.tls_port()
        options: dict[str, Any] = {"username": "guest", "password": "guest"}
        tls = TLSOptions(ca_file=shared_authority().certificate_file)
        await self.used(await AMQEndpoint(reactor, "localhost", port, tls=tls, **options).connect(AMQFactory()))
        uri = f"amqps://guest:guest@localhost:{port}"
        error = await self.failure(AMQEndpoint.from_uri(reactor, uri).connect(AMQFactory()), Closed)
        self.assertIn("ertificate", str(error.args[0]))

    async def test_other_endpoints(self) -> None:
        """What verifies a name is checked once more; what verifies nothing is the program's business."""
        port = await self.tls_port()
        with open(shared_authority().certificate_file, "rb") as file:
            root = ssl.Certificate.loadPEM(file.read())
        creator = ssl.optionsForClientTLS("localhost", root)
        for endpoint in (
            wrapClientTLS(creator, HostnameEndpoint(reactor, b"localhost", port)),
            wrapClientTLS(Unverified(), TCP4ClientEndpoint(reactor, "127.0.0.1", port)),
        ):
            connecting: Deferred[Any] = endpoint.connect(AMQFactory())
            client = await connecting
            await client.authenticate("guest", "guest")
            await self.used(client)

    async def test_another_server(self) -> None:
        """A name that the certificate does not have ends the opening before the login is sent."""
        port = await self.tls_port()
        with open(shared_authority().certificate_file, "rb") as file:
            root = ssl.Certificate.loadPEM(file.read())
        creator = ssl.optionsForClientTLS("another.example", root)
        connecting: Deferred[Any] = wrapClientTLS(creator, TCP4ClientEndpoint(reactor, "127.0.0.1", port)).connect(
            AMQFactory()
        )
        client = await connecting
        self.assertIsInstance(await settle(client.authenticate("guest", "guest")), Closed)
        await client.disconnected.wait()

    async def test_below_a_wrapper(self) -> None:
        """C1.2: wrappers do not pass on that TLS is up; the server is looked at all the same, before the login."""
        port = await self.tls_port()
        with open(shared_authority().certificate_file, "rb") as file:
            root = ssl.Certificate.loadPEM(file.read())
        endpoint = wrapClientTLS(
            ssl.optionsForClientTLS("localhost", root), TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        )
        for refusal in (None, ValueError("somebody else")):
            client = AMQClient(TwistedDelegate())
            with mock.patch("txmsg.compat.given_tls.verify_peer", side_effect=refusal) as verify:
                connecting: Deferred[Any] = endpoint.connect(policies.WrappingFactory(OneClient(client)))
                await connecting
                logging_in: Deferred[Any] = client.authenticate("guest", "guest").addTimeout(10, reactor)
                if refusal is None:
                    await logging_in
                    await self.used(client)
                else:
                    self.assertIsInstance(await settle(logging_in), Closed)
                    self.assertEqual(client.native.server_properties, {})
                await client.disconnected.wait()
            verify.assert_called_once()
            self.assertEqual(verify.call_args.args[1], "localhost")


class OneClient(Factory):
    """Makes no new ones."""

    def __init__(self, made: AMQClient) -> None:
        self.made = made

    def buildProtocol(self, addr: object) -> AMQClient:
        return self.made


@implementer(IOpenSSLClientConnectionCreator)
class Unverified:
    """Makes connections that verify nothing, as a program may."""

    def clientConnectionForTLS(self, protocol: Any) -> Any:
        return SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)


class TLSOverRabbitMQ(OverRabbitMQ, TLSCases):
    __test__ = True


class TLSOverBroker(OverBroker, TLSCases):
    __test__ = True

    async def test_a_certificate_without_a_name(self) -> None:
        """C1.2: Twisted 26.4 to 26.10 let it pass; the second look does not."""
        authority = shared_authority()
        issued = authority.issue("localhost")
        files: dict[str, Any] = {"cert_file": issued.certificate_file, "key_file": issued.key_file}
        port = (await self.embedded.listen(tls=ServerTLS(**files))).port
        with open(authority.certificate_file, "rb") as file:
            creator = ssl.optionsForClientTLS("localhost", ssl.Certificate.loadPEM(file.read()))
        endpoint = wrapClientTLS(creator, TCP4ClientEndpoint(reactor, "127.0.0.1", port))
        connecting: Deferred[Any] = endpoint.connect(AMQFactory())
        client = await connecting
        self.assertIsInstance(await settle(client.authenticate("guest", "guest")), Closed)
        await client.disconnected.wait()
        self.flushLoggedErrors()  # Twisted's own check logs, whatever comes of it
