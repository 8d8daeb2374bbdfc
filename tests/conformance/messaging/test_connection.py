"""Connections of the messaging layer against brokers: logins, virtual hosts, hosts that are down, losses."""

from __future__ import annotations

from typing import Any

from tests.certificates import shared_authority
from tests.conformance.messaging.base import MessagingCase, OverBroker, OverMemory, OverRabbitMQ
from txmsg.amqp import TLSOptions
from txmsg.errors import (
    AuthenticationFailed,
    ChannelClosed,
    ConnectFailed,
    ConnectionClosed,
    NotFound,
    OperationTimeout,
    PeerVerificationFailed,
    TxmsgError,
    VirtualHostRefused,
)
from txmsg.messaging import Connection, is_recoverable
from txmsg.testing.ports import free_ports


class ConnectionCases(MessagingCase):
    """On every transport."""

    async def test_life(self) -> None:
        """kombu A1 to A4: lazy, connected, closed, and connected again."""
        connection = self.connection()
        self.assertFalse(connection.connected)
        self.assertIs(await connection.connect(), connection)
        channel = await connection.channel()
        self.assertTrue(connection.connected and channel.is_open)
        await connection.close()
        await connection.close()
        self.assertFalse(connection.connected or channel.is_open)
        await self.failure(channel.get("q"), ConnectionClosed)
        await connection.connect()
        self.assertEqual((await channel.queue_declare(exclusive=True)).message_count, 0)

    async def test_default_channel(self) -> None:
        """kombu A7: the first call on it connects."""
        queue = self.name("q")
        connection = self.connection()
        channel = connection.default_channel
        await channel.queue_declare(queue, exclusive=True)
        await channel.publish("", queue, b"body")
        delivery = await channel.get(queue, no_ack=True)
        self.assertEqual(delivery.body, b"body")
        self.assertTrue(connection.connected)

    async def test_error_of_a_channel(self) -> None:
        """kombu A38, B10: the call that is refused fails, and the channel can be used again."""
        connection = self.connection()
        channel = await connection.channel()
        error = await self.failure(channel.queue_declare(self.name("absent"), passive=True), NotFound)
        self.assertFalse(is_recoverable(error))
        self.assertIsInstance(error, connection.channel_errors)
        await channel.queue_declare(exclusive=True)
        self.assertTrue(connection.connected)

    async def test_loss(self) -> None:
        """kombu A3, A36, B23: what waits fails with what says so; it is told, forgotten, and comes back when needed."""
        queue = self.name("q")
        connection = self.connection()
        told: list[BaseException | None] = []
        connection.add_recovery_callback(lambda reason, delay: told.append(reason))
        channel = await connection.channel()
        await channel.queue_declare(queue, auto_delete=True)
        epoch = connection.declared_entities.epoch
        await self.cut()
        await self.until(lambda: told)
        assert told[0] is not None
        self.assertTrue(is_recoverable(told[0]), told[0])
        self.assertGreater(connection.declared_entities.epoch, epoch)
        await connection.connect()
        await self.until(lambda: connection.connected)
        await channel.queue_declare(queue, auto_delete=True)
        await self.until(lambda: told[-1] is None)
        await channel.queue_delete(queue)

    async def test_consumer_comes_back(self) -> None:
        """kombu B23: what lives on a channel goes on after a loss, by the transport or by us."""
        queue, got = self.name("q"), list[bytes]()
        connection = self.connection()
        channel = await connection.channel()
        await channel.queue_declare(queue, durable=True)
        self.addCleanup(self.delete, queue)

        def take(delivery: Any) -> None:
            got.append(delivery.body)
            delivery.ack()

        class Member:
            def revive(self, channel: Any) -> Any:
                return channel.consume(queue, take)

            def lost(self, reason: BaseException) -> None:
                """At the end."""

        channel.add_member(Member())
        await channel.consume(queue, take)
        await self.cut()
        other = self.connection()
        await other.ensure_connection(interval_start=0.05, max_retries=50)
        await (await other.channel()).publish("", queue, b"after")
        await self.until(lambda: got)
        self.assertEqual(got, [b"after"])

    async def delete(self, queue: str) -> None:
        """At the end of a case."""
        connection = Connection(self.url())
        await connection.default_channel.queue_delete(queue)
        await connection.close()

    async def test_host_that_is_down(self) -> None:
        """kombu A51, B11: the list is gone through, in its order."""
        (nobody,) = free_ports(1)
        connection = Connection([f"amqp://127.0.0.1:{nobody}", self.url()])
        self.addCleanup(connection.close)
        await connection.connect()
        self.assertTrue(connection.connected)
        down = Connection(f"amqp://127.0.0.1:{nobody}")
        self.assertTrue(is_recoverable(await self.failure(down.connect(), ConnectFailed)))

    async def test_many_at_once(self) -> None:
        """One connection for all who ask at once."""
        connection = self.connection()
        channels = [connection.channel() for _ in range(5)]
        opened = [await channel for channel in channels]
        self.assertEqual(len({id(channel) for channel in opened}), 5)
        await opened[0].close()
        await self.failure(opened[0].publish("", "q", b""), ChannelClosed)
        self.assertTrue(opened[1].is_open)


class BrokerConnectionCases(ConnectionCases):
    """Where there are users, virtual hosts and heartbeats."""

    async def test_wrong_password(self) -> None:
        """kombu B9, U5: it is not retried, and nothing shows the password."""
        connection = self.connection().clone(password="S3CRET", hostname=self.host(), userid="guest")
        error = await self.failure(connection.ensure_connection(max_retries=3), AuthenticationFailed)
        self.assertNotIn("S3CRET", repr(error) + str(error) + repr(connection))
        self.assertFalse(is_recoverable(error))

    def host(self) -> str:
        """The broker, without a user."""
        return f"amqp://{self.url().rpartition('@')[2].partition('/')[0].removeprefix('amqp:')}"

    async def test_virtual_hosts(self) -> None:
        """kombu A12, CN12: "/" in its forms; the empty one, which is not there, is not taken for it."""
        host = self.host().removeprefix("amqp://")
        for path in ("", "//", "/%2F"):
            connection = Connection(f"amqp://guest:guest@{host}{path}")
            self.addCleanup(connection.close)
            await connection.connect()
        for path in ("/", "//absent", "/absent"):
            error = await self.failure(Connection(f"amqp://guest:guest@{host}{path}").connect(), TxmsgError)
            self.assertIsInstance(error, VirtualHostRefused, path)

    async def test_login_methods(self) -> None:
        """kombu A19: AMQPLAIN and PLAIN, with a user and with the default one."""
        for method in ("AMQPLAIN", "PLAIN"):
            for userid in ("guest", None):
                connection = Connection(self.host(), userid, userid, login_method=method)
                self.addCleanup(connection.close)
                await connection.connect()

    async def test_heartbeat(self) -> None:
        """kombu A25, A27: what was agreed on, and not what was asked for, when the broker wants less; 0 is none."""
        connection = self.connection(heartbeat=2.5)
        self.assertEqual(connection.get_heartbeat_interval(), 0)
        await connection.connect()
        self.assertEqual(connection.get_heartbeat_interval(), 3.0)
        none = self.connection(heartbeat=0)
        await none.connect()
        self.assertEqual(none.get_heartbeat_interval(), 0)

    async def test_options(self) -> None:
        """kombu A13, A21: those of the URL reach the transport, and so do transport_options."""
        connection = Connection(
            f"{self.host()}?channel_max=1&operation_timeout=0.2", transport_options={"connection_name": "mine"}
        )
        self.addCleanup(connection.close)
        await connection.channel()
        await self.failure(connection.channel(), OperationTimeout)
        wrong = Connection(self.host(), transport_options={"conection_name": "mine"})
        error = await self.failure(wrong.connect(), ValueError)
        self.assertIn("connection_name", str(error))


class TLSConnectionCases(MessagingCase):
    """Over TLS, with the certificates of the tests' authority."""

    node: Any

    async def test_tls(self) -> None:
        """kombu A17, A18, A50: by the scheme, by keyword and in the URL; a CA that is not trusted is refused."""
        where, ca = f"localhost:{self.node.tls_port}", str(shared_authority().certificate_file)
        for connection in (
            Connection(f"amqps://{where}", ssl={"ca_certs": ca}),
            Connection(where, ssl={"ca_certs": ca, "cert_reqs": "required"}),
            Connection(f"amqps://{where}?ssl_ca_certs={ca}"),
            Connection(f"amqp://{where}", ssl=TLSOptions(ca_file=ca)),
        ):
            self.addCleanup(connection.close)
            await connection.default_channel.queue_declare(exclusive=True)
        refused = Connection(f"amqps://{where}")
        error = await self.failure(refused.ensure_connection(max_retries=3), PeerVerificationFailed)
        self.assertFalse(is_recoverable(error))

    async def test_external(self) -> None:
        """kombu A19: EXTERNAL takes the user of the client's certificate."""
        await self.in_thread(self.node.add_user, "certified", None)
        self.addCleanup(self.in_thread, self.node.delete_user, "certified")
        issued = shared_authority().issue("certified")
        files = {"ca_certs": shared_authority().certificate_file, "certfile": issued.certificate_file}
        connection = Connection(
            f"amqps://localhost:{self.node.mtls_port}",
            ssl={**files, "keyfile": issued.key_file},
            login_method="EXTERNAL",
        )
        self.addCleanup(connection.close)
        await connection.connect()


class ConnectionOverMemory(OverMemory, ConnectionCases):
    """Over memory://."""


class ConnectionOverBroker(OverBroker, BrokerConnectionCases):
    """Over the embedded broker."""


class ConnectionOverRabbitMQ(OverRabbitMQ, BrokerConnectionCases):
    """Over RabbitMQ."""


class TLSConnectionOverBroker(OverBroker, TLSConnectionCases):
    """Over the embedded broker."""

    async def test_tls(self) -> None:
        """kombu A17, A18, A50: with its ports for TLS."""
        await self.node.listen_with_tls()
        await super().test_tls()

    async def test_external(self) -> None:
        """kombu A19: with its port for client certificates."""
        await self.node.listen_with_tls()
        await super().test_external()


class TLSConnectionOverRabbitMQ(OverRabbitMQ, TLSConnectionCases):
    """Over RabbitMQ."""
