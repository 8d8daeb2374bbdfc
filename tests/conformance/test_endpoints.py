"""Where the bytes come from: IPv4, IPv6, a Unix socket, a wrapped endpoint, TLS; and which thread calls."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.internet.threads import blockingCallFromThread

from tests.certificates import shared_authority
from tests.conformance.base import BrokerCase, OverBroker, OverPeer, OverRabbitMQ, reactor
from txmsg.amqp import AMQPProtocol, ExternalCredentials, TLSOptions, connect
from txmsg.errors import AuthenticationFailed, TLSFailed, TxmsgError, WrongThread


async def use(case: BrokerCase, connection: AMQPProtocol) -> None:
    """Publish and get one message, then close."""
    channel = await connection.channel()
    name = await case.queue(channel, b"through here")
    delivery = await case.get(channel, name, no_ack=False)
    case.assertEqual(delivery.body, b"through here")
    delivery.ack()
    await connection.close()


def has_ipv6() -> bool:
    """Whether this machine has ::1."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class EndpointsOverPeer(OverPeer, BrokerCase):
    async def test_any_endpoint(self) -> None:
        """J-01, peers 28: connect() takes a client endpoint; host and port are then only names."""
        endpoint = TCP4ClientEndpoint(reactor, self.host, self.port)
        parameters = self.parameters(host="localhost", port=1)
        await use(self, await connect(parameters, endpoint=endpoint))

    async def test_unix_socket(self) -> None:
        """peers 28: a stream that is not TCP."""
        with tempfile.TemporaryDirectory() as directory:
            path = str(Path(directory) / "amqp.sock")
            port = reactor.listenUNIX(path, self.broker)
            try:
                connection = await connect(self.parameters(), endpoint=UNIXClientEndpoint(reactor, path))
                await use(self, connection)
            finally:
                await port.stopListening()

    async def test_url(self) -> None:
        """X-03: connect() takes a URL."""
        await use(self, await connect(f"amqp://guest:guest@{self.host}:{self.port}/%2F?heartbeat=0"))

    async def test_a_tls_client_on_a_plain_port(self) -> None:
        """D-08, 3.7: typed, with a hint, and no hang."""
        tls = TLSOptions(ca_file=str(shared_authority().certificate_file))
        error = await self.failure(
            connect(self.parameters(host="localhost", tls=tls, handshake_timeout=2.0)), TxmsgError
        )
        self.assertIsInstance(error, TLSFailed)


class IPv6OverPeer(OverPeer, BrokerCase):
    host = "::1"
    if not has_ipv6():
        skip = "this machine has no ::1"

    async def test_ipv6(self) -> None:
        """W-57, C-09: by address, and in brackets in a URL."""
        await use(self, await connect(self.parameters()))
        await use(self, await connect(f"amqp://guest:guest@[::1]:{self.port}/"))


class ThreadCases(BrokerCase):
    async def test_calls_from_a_wrong_thread(self) -> None:
        """A-05, peers 23: WrongThread at once, from every kind of call; nothing is sent."""
        connection = await self.connect()
        channel = await connection.channel()
        name = await self.queue(channel, b"1")
        delivery = await self.get(channel, name, no_ack=False)
        calls: list[Any] = [
            connection.channel,
            connection.close,
            lambda: connection.update_secret("s", ""),
            lambda: channel.basic_publish("", name, b"x"),
            lambda: channel.queue_declare(name),
            lambda: channel.basic_consume(name),
            lambda: channel.basic_cancel("t"),
            lambda: channel.basic_get(name),
            channel.confirm_select,
            channel.close,
            delivery.ack,
            delivery.nack,
            delivery.reject,
        ]

        def in_thread() -> list[str]:
            seen = []
            for call in calls:
                try:
                    call()
                except WrongThread as error:
                    seen.append(str(error))
            return seen

        texts = await self.in_thread(in_thread)
        self.assertEqual(len(texts), len(calls))
        self.assertIn("callFromThread", texts[0])
        self.assertFalse(delivery.is_settled)
        delivery.ack()
        await channel.basic_qos(1)
        self.assertTrue(channel.is_open)

    async def test_the_documented_crossing(self) -> None:
        """W-02, A-05, U-04: an ack from a worker thread by callFromThread; a publish by blockingCallFromThread."""
        channel = await self.channel()
        name = await self.queue(channel, b"1")
        delivery = await self.get(channel, name, no_ack=False)

        def work() -> object:
            reactor.callFromThread(delivery.ack)
            declare: Any = channel.queue_declare
            return blockingCallFromThread(reactor, declare, name, passive=True)

        declared: Any = await self.in_thread(work)
        self.assertEqual(declared.message_count, 0)
        self.assertTrue(delivery.is_settled)
        connection = channel.connection
        await channel.close()
        self.assertEqual(await self.depth(await connection.channel(), name), 0)


class ThreadsOverRabbitMQ(OverRabbitMQ, ThreadCases):
    pass


class ThreadsOverBroker(OverBroker, ThreadCases):
    pass


class ThreadsOverPeer(OverPeer, ThreadCases):
    pass


class TLSCases(BrokerCase):
    def tls(self, **options: Any) -> TLSOptions:
        """Options that trust the node."""
        return TLSOptions(ca_file=str(shared_authority().certificate_file), **options)

    def client(self, common_name: str) -> dict[str, str]:
        """A client certificate, as TLS options."""
        issued = shared_authority().issue(common_name)
        return {"cert_file": str(issued.certificate_file), "key_file": str(issued.key_file)}

    async def test_server_certificate(self) -> None:
        """D-06, X-16, peers 12, peers 13: amqps with a CA of our own, by name and by address."""
        for host in ("localhost", "127.0.0.1"):
            parameters = self.parameters(host=host, port=self.node.tls_port, tls=self.tls())
            await use(self, await connect(parameters))

    async def test_much_over_tls(self) -> None:
        """W-28, J-18: 3 MB in one message and a thousand small ones, both ways at once."""
        parameters = self.parameters(host="localhost", port=self.node.tls_port, tls=self.tls())
        connection = await connect(parameters)
        self.addCleanup(connection.close)
        channel = await connection.channel()
        await channel.confirm_select()
        big = bytes(range(256)) * 12_000
        name = await self.queue(channel)
        consumer = await channel.basic_consume(name)
        published = [channel.basic_publish("", name, big if n == 500 else b"%d" % n) for n in range(1000)]
        for n in range(1000):
            delivery = await consumer.get()
            self.assertEqual(delivery.body, big if n == 500 else b"%d" % n)
            delivery.ack()
        await gatherResults(published)

    async def test_external(self) -> None:
        """D-03 to D-05, E-06, X-15: the client certificate's common name is the user."""
        await self.in_thread(self.node.add_user, "certified", None)
        self.addCleanup(self.in_thread, self.node.delete_user, "certified")
        tls = self.tls(**self.client("certified"))
        parameters = self.parameters(
            host="localhost", port=self.node.mtls_port, tls=tls, credentials=ExternalCredentials()
        )
        await use(self, await connect(parameters))

    async def test_external_without_such_a_user(self) -> None:
        """E-06, J-06, 3.7: a certificate that the CA signed, but no user of that name: AuthenticationFailed."""
        tls = self.tls(**self.client("nobody"))
        parameters = self.parameters(
            host="localhost", port=self.node.mtls_port, tls=tls, credentials=ExternalCredentials()
        )
        error = await self.failure(connect(parameters), AuthenticationFailed)
        self.assertEqual(error.reply_code, 403)

    async def test_wrapped_endpoint(self) -> None:
        """peers 28: TLS that the caller has wrapped around an endpoint."""
        root = Certificate.loadPEM(shared_authority().certificate_file.read_bytes())
        options = optionsForClientTLS("localhost", trustRoot=trustRootFromCertificates([root]))
        endpoint = wrapClientTLS(options, TCP4ClientEndpoint(reactor, "127.0.0.1", self.node.tls_port))
        await use(self, await connect(self.parameters(host="localhost", tls=None), endpoint=endpoint))


class TLSOverRabbitMQ(OverRabbitMQ, TLSCases):
    pass


class TLSOverBroker(OverBroker, TLSCases):
    def setUp(self) -> Deferred[Any]:  # type: ignore[override]
        """Listen for TLS, too."""
        return super().setUp().addCallback(lambda _: Deferred.fromCoroutine(self.node.listen_with_tls()))
