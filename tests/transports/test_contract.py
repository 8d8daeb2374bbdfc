"""The contract of a messaging transport, over each transport there is."""

from __future__ import annotations

from typing import Any, ClassVar

from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred

from tests.cases import RabbitMQTestCase, ReactorTestCase
from tests.certificates import shared_authority
from txmsg.broker.tls import ServerTLS
from txmsg.errors import PeerVerificationFailed, TLSFailed
from txmsg.testing import EmbeddedBroker
from txmsg.testing.contract import LifeContract, PublishingContract, RecoveryContract, TransportContract
from txmsg.testing.disruption import DisruptionProxy
from txmsg.transports.amqp import AMQPTransport
from txmsg.transports.memory import MemoryTransport

#: Quick to come back.
OPTIONS = {"backoff": {"initial": 0.05, "maximum": 0.5}}


class ContractOverMemory(TransportContract, ReactorTestCase):
    """R38: ``memory://``.

    kombu C4, C5, C12, W1 to W10, W12 to W15, W17 to W25, W27 to W29, W32 to W35, W37, W39, X2 to X5
    """

    def setUp(self) -> None:
        self.transport = MemoryTransport()
        self.addCleanup(self.transport.reset)

    def new_connection(self) -> Any:
        return self.transport.connect("memory://")


class ContractOverBroker(TransportContract, ReactorTestCase):
    """R38, R34: ``amqp://`` to the embedded broker.

    kombu C4, C5, C12
    """

    def setUp(self) -> Deferred[Any]:  # type: ignore[override]
        self.broker = EmbeddedBroker(listen=True)
        self.addCleanup(self.broker.stop)
        return self.broker.start()

    def new_connection(self) -> Any:
        return AMQPTransport().connect(self.broker.url)


class ContractOverRabbitMQ(TransportContract, RabbitMQTestCase):
    """R38: ``amqp://`` to RabbitMQ.

    kombu C4, C5, C12, D8, D11, D14, D16, D18 to D20, D22 to D27
    """

    def new_connection(self) -> Any:
        return AMQPTransport().connect(self.node.url)


class ProxiedCase(RecoveryContract, ReactorTestCase):
    """Losses through a proxy before a broker."""

    __test__ = False
    proxy: DisruptionProxy
    scheme = "amqp"
    options: ClassVar[dict[str, Any]] = {}

    async def start_proxy(self, port: int) -> None:
        """Put it before the broker at `port`."""
        self.proxy = DisruptionProxy("127.0.0.1", port)
        await self.proxy.start()
        self.addCleanup(self.proxy.stop)

    def new_connection(self) -> Any:
        url = f"{self.scheme}://guest:guest@localhost:{self.proxy.port}"
        return AMQPTransport().connect(url, options=OPTIONS | self.options)

    def lose(self, connection: Any) -> Any:
        self.proxy.reset_all()

    def break_off(self) -> Any:
        self.refusal = self.proxy.refuse()
        self.proxy.reset_all()

    def restore(self) -> Any:
        self.refusal.stop()


class RecoveryOverBroker(ProxiedCase):
    """R1, R23, R25: ``amqp://`` to the embedded broker.

    kombu D8, W21
    """

    __test__ = True

    async def setUp(self) -> None:  # type: ignore[override]
        broker = EmbeddedBroker(listen=True)
        self.addCleanup(broker.stop)
        await broker.start()
        await self.start_proxy(broker.port)


class RecoveryOverRabbitMQ(ProxiedCase, RabbitMQTestCase):
    """R1, R23, R25: ``amqp://`` to RabbitMQ.

    kombu D8, W21
    """

    __test__ = True

    async def setUp(self) -> None:  # type: ignore[override]
        RabbitMQTestCase.setUp(self)
        await self.start_proxy(self.node.port)


class RestartTests(ReactorTestCase):
    """A broker that ends and starts again."""

    async def test_it_is_found_again(self) -> None:
        """R1, kombu W17: what a broker without a disk has forgotten is declared again; the consumer goes on."""
        broker = EmbeddedBroker(listen=True)
        await broker.start()
        port = broker.port
        connection = await AMQPTransport().connect(broker.url, options=OPTIONS)
        self.addCleanup(connection.close)
        channel = await connection.channel()
        await channel.exchange_declare("orders", "topic", durable=True)
        await channel.queue_declare("jobs", durable=True)
        await channel.queue_bind("jobs", "orders", "#")
        got: Deferred[Any] = Deferred()
        await channel.consume("jobs", got.callback)
        await broker.stop()
        again = EmbeddedBroker()
        self.addCleanup(again.stop)
        await again.start()
        await again.broker.listen("127.0.0.1", port)
        await connection.retry()
        await channel.publish("orders", "a.b", b"after")
        self.assertEqual((await got).body, b"after")


class ContractOverTLS(LifeContract, PublishingContract, ProxiedCase):
    """``amqps://`` with a client certificate, to the embedded broker.

    C1.1, kombu D40
    """

    __test__ = True
    scheme = "amqps"

    async def setUp(self) -> None:  # type: ignore[override]
        authority = shared_authority()
        server, client = authority.issue("localhost", dns=["localhost"]), authority.issue("client")
        broker = EmbeddedBroker()
        self.addCleanup(broker.stop)
        await broker.start()
        listener = await broker.listen(
            tls=ServerTLS(
                cert_file=server.certificate_file,
                key_file=server.key_file,
                ca_file=authority.certificate_file,
                verify="required",
            )
        )
        await self.start_proxy(listener.port)
        files = {
            "ca_certs": authority.certificate_file,
            "certfile": client.certificate_file,
            "keyfile": client.key_file,
        }
        self.options = {"ssl": files}  # type: ignore[misc]

    async def test_without_a_certificate(self) -> None:
        """kombu D40, D41: typed, and no login is sent; the same for a broker that nobody vouches for."""
        url = f"amqps://guest:guest@localhost:{self.proxy.port}"
        files = {"ca_certs": shared_authority().certificate_file}
        await self.failure(AMQPTransport().connect(url, options={"ssl": files}), TLSFailed)
        await self.failure(AMQPTransport().connect(url, options={"ssl": True}), PeerVerificationFailed)


class ClientCertificateTests(RabbitMQTestCase):
    """``amqps://`` to a RabbitMQ that wants a client certificate."""

    async def test_external(self) -> None:
        """kombu D1: SASL EXTERNAL: the user is the certificate's."""
        client = shared_authority().issue(self.name("client"))
        [attribute] = client.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        await self.in_thread(self.node.add_user, str(attribute.value), "not used")
        await self.in_thread(self.node.set_permissions, str(attribute.value), "/")
        connection = await AMQPTransport().connect(
            f"amqps://localhost:{self.node.mtls_port}",
            options={
                "ssl": {
                    "ca_certs": shared_authority().certificate_file,
                    "certfile": client.certificate_file,
                    "keyfile": client.key_file,
                },
                "login_method": "EXTERNAL",
            },
        )
        self.addCleanup(connection.close)
        channel = await connection.channel()
        queue = (await channel.queue_declare("", exclusive=True)).name
        await channel.publish("", queue, b"x")
        delivery = await channel.get(queue, no_ack=True)
        assert delivery is not None
        self.assertEqual(delivery.body, b"x")
